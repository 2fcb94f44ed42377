"""Commands of the population, carried out on the engine.

Owns what the kernel has refused and is tried again with the next `Live`: a release
for which there was no memory. Spawn, Notice and Ended are the cluster's own.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import _engine
from ..base.text import bytes_of
from ..events.view import Worker
from ..host.signals import catches, is_node
from ..metrics.memory import memory_of
from ..options import Options
from ..output.eventlog import EventLog
from ..population import addresses, commands, population, recycling
from ..population.draining import Facts
from ..population.state import Population
from .questions import Asking


@dataclass(eq=False)
class Executor:
    """`workers`: those the cluster knows; a released one leaves it."""

    engine: _engine.Engine
    population: Population
    workers: dict[int, Worker]
    options: Options
    eventlog: EventLog
    asking: Asking | None = None
    _unreleased: set[int] = field(default_factory=set, init=False)

    def carry_out(self, command: commands.Command, now: float) -> None:
        HANDLERS[type(command)](self, command, now)

    def _live(self, command: commands.Live, now: float) -> None:
        try:
            self.engine.steer(command.workers, command.weights)
            self.eventlog.over("steer")
        except OSError as error:
            self.eventlog.once("steer", f"cannot steer: {error.strerror}; retrying")
            population.steering_failed(self.population, now)
        with contextlib.suppress(OSError):  # a sandbox without sock_diag
            addresses.shared(self.population, self.engine.shared())
        for key in list(self._unreleased):
            self._release(key, now)

    def _inherit(self, command: commands.Inherit, now: float) -> None:
        # The kernel may have refused it since: then it inherits nothing.
        with contextlib.suppress(OSError):
            self.engine.heir(command.worker, command.heir_of)

    def _retired(self, command: commands.Retired, now: float) -> None:
        with contextlib.suppress(OSError):  # a sandbox without sock_diag: less is known
            self.engine.drain_begin(command.workers)

    def _disconnect(self, command: commands.Disconnect, now: float) -> None:
        self.engine.send(command.worker, b'{"cmd": "disconnect"}')

    def _ask(self, command: commands.Ask, now: float) -> None:
        if self.asking:
            self.asking.ask(command.worker)

    def _leave(self, command: commands.Leave, now: float) -> None:
        number = self.options.stop_signal
        with contextlib.suppress(OSError):  # then it is as ever: it closes what it has
            if self.engine.hand_over(command.worker, number):
                return  # it is told when nothing is read any more that would not be answered
        self.engine.stop(command.worker, number)

    def _move(self, command: commands.Move, now: float) -> None:
        with contextlib.suppress(OSError):  # not now; it will be tried again
            self.engine.move(command.worker, self.options.stop_signal, command.quiet)

    def _give_up(self, command: commands.GiveUp, now: float) -> None:
        with contextlib.suppress(OSError):  # it has been released
            self.engine.give_up(command.worker)

    def _abort(self, command: commands.Abort, now: float) -> None:
        self.engine.stop(command.worker, signal.SIGABRT)

    def _kill(self, command: commands.Kill, now: float) -> None:
        self.engine.kill(command.worker)

    def _end_strays(self, command: commands.EndStrays, now: float) -> None:
        self.engine.strays(command.worker, signal.SIGKILL if command.kill else signal.SIGTERM)

    def _inspect(self, command: commands.Inspect, now: float) -> None:
        population.inspected(self.population, command.worker, self._facts(command.worker), now)

    def _measure(self, command: commands.Measure, now: float) -> None:
        worker = self.workers.get(command.worker)
        if worker is None or not worker.pid:
            return
        limit = self.options.max_rss
        memory = None
        if limit:
            enough = limit * (1 - self.options.jitter)
            memory = memory_of(self.engine, command.worker, enough)
        accepted = None
        with contextlib.suppress(OSError):  # it is released
            _, accepted, _ = self.engine.counts(command.worker)
        recycling.measured(self.population, command.worker, memory, accepted, now)

    def _let_go(self, command: commands.Release, now: float) -> None:
        self._release(command.worker, now)

    def _close_lanes(self, command: commands.CloseLanes, now: float) -> None:
        self.engine.close_lanes()

    def _ended(self, command: commands.Ended, now: float) -> None:
        """The pump sees to it."""

    def _find_deaf(self, command: commands.FindDeaf, now: float) -> None:
        self.engine.deaf(command.worker)

    def _audit(self, command: commands.Audit, now: float) -> None:
        with contextlib.suppress(OSError):  # it has ended, or may not be looked at
            addresses.unseen(self.population, command.worker, self.engine.unseen(command.worker))

    def _hold(self, command: commands.Hold, now: float) -> None:
        try:
            self.engine.hold(bytes_of(command.address), command.on)
        except OSError:
            population.steering_failed(self.population, now)

    def _refuse(self, command: commands.Refuse, now: float) -> None:
        with contextlib.suppress(OSError):  # a worker has just claimed it
            self.engine.refuse(bytes_of(command.address), command.on)

    def _release(self, key: int, now: float) -> None:
        """Its lanes leave their groups; without memory for the programs that this
        takes, with the next `Live`."""
        self._unreleased.discard(key)
        try:
            self.engine.release(key)
        except ProcessLookupError:  # it is released already
            pass
        except OSError:
            self._unreleased.add(key)
            population.steering_failed(self.population, now)
            return
        self.workers.pop(key, None)

    def _facts(self, key: int) -> Facts:
        engine, worker = self.engine, self.workers.get(key)
        server = engine.server(key) if worker is not None else 0
        connections: int | None
        try:
            connections, owing, quiet, half_open, queued = engine.drain_look(key)
        except OSError:  # it cannot be known here
            queued, half_open, connections, owing, quiet = engine.queued(key), 0, None, 0, 0.0
        return Facts(
            queued=queued,
            half_open=half_open,
            connections=connections,
            owing=owing,
            quiet=quiet,
            catches_stop=bool(server) and catches(server, self.options.stop_signal),
            always_catches=bool(server) and is_node(server),
            heard=worker is not None and engine.heard(key),
            stranded=engine.deaf(key) if queued else 0,
            handed=queued > 0 and engine.hands_out(key),
            told=worker is not None and engine.left_at(key) is not None,
        )


HANDLERS: dict[type, Callable[[Executor, Any, float], None]] = {
    commands.Live: Executor._live,
    commands.Inherit: Executor._inherit,
    commands.Retired: Executor._retired,
    commands.Disconnect: Executor._disconnect,
    commands.Ask: Executor._ask,
    commands.Leave: Executor._leave,
    commands.Move: Executor._move,
    commands.GiveUp: Executor._give_up,
    commands.Abort: Executor._abort,
    commands.Kill: Executor._kill,
    commands.EndStrays: Executor._end_strays,
    commands.Inspect: Executor._inspect,
    commands.Measure: Executor._measure,
    commands.Release: Executor._let_go,
    commands.CloseLanes: Executor._close_lanes,
    commands.FindDeaf: Executor._find_deaf,
    commands.Audit: Executor._audit,
    commands.Ended: Executor._ended,
    commands.Hold: Executor._hold,
    commands.Refuse: Executor._refuse,
}
