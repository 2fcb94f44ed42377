"""The one place where an exception of the master's own code ends.

While an event of a worker is handled it ends at that worker: it is logged, the worker is
killed and replaced as one that has failed, and the cluster serves on. What the program's
owner has set (callbacks, watches, signal handlers) is no business of this place.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from .. import _engine
from ..base.levels import ERROR
from ..events.view import Worker
from ..output.eventlog import EventLog
from ..population import commands, population, recovery
from ..population.lifecycle import ENDED
from ..population.state import Population

FINAL = (_engine.EXIT, _engine.GONE)  # no process is left that could be ended
TRIES = 3  # for a worker whose end cannot be handled, before it is forgotten


def _described(error: BaseException) -> str:
    """ZeroDivisionError: division by zero (slots.py:41)."""
    where, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        where = f" ({os.path.basename(code.co_filename)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{where}"


@dataclass(eq=False)
class Containment:
    """`workers`: those the cluster knows."""

    engine: _engine.Engine
    population: Population
    workers: dict[int, Worker]
    eventlog: EventLog
    _tries: dict[int, int] = field(default_factory=dict, init=False)

    def event(self, kind: int, key: int, value: int, error: Exception, now: float) -> None:
        """Of a worker that the cluster knows."""
        self._tell(error, key)
        if kind in FINAL:
            self._end(kind, key, value, now)
        else:
            self._fail(key, error, now)
        self._repair(now)

    def _end(self, kind: int, key: int, value: int, now: float) -> None:
        people = self.population
        with contextlib.suppress(Exception):  # it may not have got as far as there
            if kind == _engine.EXIT and people.members[key].state not in ENDED:
                population.exited(people, key, value, now)
            elif kind == _engine.GONE and people.members[key].state in ENDED:
                population.gone(people, key, now)
        member = people.members.get(key)
        if member is not None and member.state not in ENDED:
            self._forget(key, now)

    def command(self, command: commands.Command, error: Exception, now: float) -> None:
        key: int = getattr(command, "worker", 0)
        self._tell(error, key, f" in {type(command).__name__}")
        if isinstance(command, commands.Spawn):
            self._unborn(key, error, now)
        elif isinstance(command, commands.Live):
            population.steering_failed(self.population, now)
        elif isinstance(command, commands.CloseLanes):
            with contextlib.suppress(OSError):
                self.engine.close_lanes()
        elif isinstance(command, commands.Release):
            with contextlib.suppress(OSError):
                self.engine.release(key)
            self.workers.pop(key, None)
        elif key and not isinstance(command, commands.Notice | commands.Inherit | commands.Measure):
            self._fail(key, error, now)
        self._repair(now)

    def tick(self, error: Exception, now: float) -> None:
        key, self.population.about = self.population.about, 0
        self._tell(error, key, " in tick")
        if key:
            self._fail(key, error, now)
        self._repair(now)

    def signal(self, name: str, error: Exception, now: float) -> None:
        self._tell(error, 0, f" at {name}")
        self._repair(now)

    # ---- inside ----------------------------------------------------------------------

    def _tell(self, error: Exception, key: int, where: str = "") -> None:
        worker = self.workers.get(key)
        text = f"an error inside the master{where}: {_described(error)}"
        who = "" if worker else "the cluster: "
        self.eventlog.once(f"contained {key} {text}", f"{who}{text}", ERROR, worker)

    def _fail(self, key: int, error: Exception, now: float) -> None:
        """Its end is handled as that of any worker that was killed."""
        member = self.population.members.get(key)
        if member is None:
            return
        if member.state not in ENDED:
            member.error = member.error or f"an error inside the master: {_described(error)}"
            self.engine.kill(key)
            return
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] >= TRIES:
            self._forget(key, now)

    def _unborn(self, key: int, error: Exception, now: float) -> None:
        """A worker that could not be spawned; or is there, though that failed later."""
        if self.engine.server(key):
            self._fail(key, error, now)
            return
        with contextlib.suppress(OSError):
            self.engine.release(key)
        if key in self.population.members:
            population.spawn_failed(self.population, key, _described(error), now)
        self.workers.pop(key, None)

    def _forget(self, key: int, now: float) -> None:
        self._tries.pop(key, None)
        recovery.forget(self.population, key, now)

    def _repair(self, now: float) -> None:
        try:
            recovery.repair(self.population, now)
        except Exception as error:
            self._tell(error, 0, " in its repair")
