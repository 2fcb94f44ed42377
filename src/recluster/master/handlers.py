"""What has happened to workers, and what they have said, told to the population.

Owns the meaning of the engine's events and of a worker's messages. Decides nothing, and
does not carry out what the population then wants.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _engine
from ..base.levels import ERROR, INFO, WARNING
from ..base.text import json_of, text_of
from ..events.view import Worker
from ..options import Options
from ..output.eventlog import EventLog
from ..population import addresses, background, failing, healing, population, readiness
from ..population.state import Population
from ..start.doors import OtherDoor

Handler = Callable[["Handlers", int, int, bytes, float], None]

ERROR_MOST = 2000  # characters of what a worker says of its end


@dataclass(eq=False)
class Handlers:
    """`workers`: those the cluster knows. `messages` tells the
    cluster's user of what a worker sends."""

    engine: _engine.Engine
    population: Population
    workers: dict[int, Worker]
    options: Options
    eventlog: EventLog
    messages: Callable[[int, Any], None]
    other_door: OtherDoor

    def happened(self, kind: int, key: int, value: int, text: bytes, now: float) -> None:
        """An event of the engine about the worker `key`, which is known."""
        HANDLERS[kind](self, key, value, text, now)

    def _door(self, key: int, error: int, text: bytes, now: float) -> None:
        if error == 0:
            population.online(self.population, key, now)
        else:
            self.eventlog.line(
                f"its door did not open: {os.strerror(error)}", ERROR, self.workers[key]
            )

    def _blind(self, key: int, error: int, text: bytes, now: float) -> None:
        """What it binds cannot be seen. One that is not ready has perhaps no other address,
        and is started again with the other door; of a ready one it may be a helper (sudo)."""
        worker, what = self.workers[key], "has rights that the master may not look into"
        if healing.is_booting(self.population, key) and self.other_door.open():
            self.eventlog.line(
                f"{what} (CAP_SYS_PTRACE is missing); workers get the preload library instead, "
                "and it is started again",
                WARNING,
                worker,
            )
            healing.start_again(self.population, key, now)
        else:
            self.eventlog.once(
                f"blind {key}",
                f"{what} ({os.strerror(error)}): what it binds there is its own, and no lane; "
                "CAP_SYS_PTRACE or --door preload would help",
                worker=worker,
            )

    def _listening(self, key: int, value: int, text: bytes, now: float) -> None:
        first, *more = text_of(text).split("\0")
        population.listening(self.population, key, first, now, proving=value == 2, more=more)
        how = self.engine.balance_how()
        if how:
            line, level = f"new connections: {self.options.balance} by {how}", INFO
            if "reuseport" in how:
                line += (
                    ": this worker cannot be passed any (a static program, or one without the "
                    "preload library), so it gets its part by chance"
                )
                level = WARNING
            self.eventlog.once(f"balance {how}", line, level, self.workers.get(key))

    def _accepting(self, key: int, error: int, text: bytes, now: float) -> None:
        if error:
            why = f"that it accepts cannot be proved from here ({os.strerror(error)})"
            if error == errno.ETIME:
                why = "is idle, and not seen to wait for connections where it listens"
            self.eventlog.once("unproven", f"{why}: to listen is enough", worker=self.workers[key])
        readiness.accepting(self.population, key, now)

    def _deaf(self, key: int, left: int, text: bytes, now: float) -> None:
        addresses.deaf(self.population, key, text_of(text), bool(left), now)

    def _garbled(self, key: int, limit: int, text: bytes, now: float) -> None:
        self.eventlog.once(
            f"garbled {key}",
            f"sent a line of more than {limit} bytes; dropped",
            worker=self.workers[key],
        )

    def _hung(self, key: int, queued: int, text: bytes, now: float) -> None:
        population.hung(self.population, key, queued, now)

    def _takes(self, key: int, value: int, text: bytes, now: float) -> None:
        population.takes(self.population, key, now)

    def _in_the_way(self, key: int, value: int, text: bytes, now: float) -> None:
        wanted, _, given = text_of(text).partition(" ")
        self.eventlog.once(
            f"way {wanted}",
            f"binds {wanted}, but {given}, which was there before (--bind, "
            f"LISTEN_FDS), stands in the way: let the server listen on {given}, or give {wanted}",
            worker=self.workers[key],
        )

    def _exit(self, key: int, status: int, text: bytes, now: float) -> None:
        people = self.population
        left = background.may_have_gone(people, key, status, now) and self.engine.strays(key) > 0
        population.left(people, key, self.engine.left_at(key))
        if self.engine.queued(key) and not self.engine.hands_out(key):
            population.leaves_waiting(people, key)
        population.exited(people, key, status, now, left)

    def _gone(self, key: int, value: int, text: bytes, now: float) -> None:
        population.gone(self.population, key, now)

    def _message(self, key: int, value: int, line: bytes, now: float) -> None:
        try:
            message = json_of(line)
        except ValueError:
            self.eventlog.once(
                f"json {key}",
                "sent a line that is not JSON; such lines are dropped",
                worker=self.workers[key],
            )
            return
        command = message.get("cmd") if isinstance(message, dict) else None
        if command == "ready":
            readiness.said_ready(self.population, key, now)
        elif command == "disconnect":
            population.said_disconnect(self.population, key, now)
        elif command == "recluster.error":
            nothing = message.get("nothing") is True
            failing.failed(self.population, key, str(message.get("error"))[:ERROR_MOST], nothing)
            return
        elif isinstance(command, str) and command.startswith("NODE_"):
            return  # Node's own, about handles
        population.spoke(self.population, key)
        if command == "recluster.hello":
            return
        self.messages(key, message)


HANDLERS: dict[int, Handler] = {
    _engine.DOOR: Handlers._door,
    _engine.BLIND: Handlers._blind,
    _engine.LISTENING: Handlers._listening,
    _engine.ACCEPTING: Handlers._accepting,
    _engine.DEAF: Handlers._deaf,
    _engine.MESSAGE: Handlers._message,
    _engine.GARBLED: Handlers._garbled,
    _engine.HUNG: Handlers._hung,
    _engine.TAKES: Handlers._takes,
    _engine.IN_THE_WAY: Handlers._in_the_way,
    _engine.EXIT: Handlers._exit,
    _engine.GONE: Handlers._gone,
}
