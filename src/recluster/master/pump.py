"""The loop: the engine's events in, the population's commands out, one turn at a time.

Owns the watched descriptors and the order of things within a turn. Decides nothing, and
knows neither what an event means (`handlers`) nor how a command is carried out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .. import _engine
from ..population import commands, population, slots
from ..population.state import Population
from .containment import Containment

PUT_OFF_MOST = 8
AFTER_ERROR = 1.0  # seconds before a clock that could not be handled strikes again
SPAWNS_AT_A_TIME = 8


class Attendant(Protocol):
    """Who looks at how things are whenever something was done, and has times of its own."""

    def look(self) -> None: ...

    def deadline(self) -> float | None: ...

    def tick(self, now: float) -> None: ...


Happened = Callable[[int, int, int, bytes, float], None]


@dataclass(eq=False)
class Pump:
    """`happened` gets the events of workers, `carry_out` the commands, and `ended` the exit
    code, once: it stops the pump."""

    engine: _engine.Engine
    population: Population
    containment: Containment
    happened: Happened
    carry_out: Callable[[commands.Command, float], None]
    ended: Callable[[int], None]
    _watched: dict[int, Callable[[], object]] = field(default_factory=dict, init=False)
    _working: bool = field(default=False, init=False)
    _put_off: int = field(default=0, init=False)
    _not_before: float = field(default=0.0, init=False)
    _stopped: bool = field(default=False, init=False)
    _attendants: list[Attendant] = field(default_factory=list, init=False)

    def attend(self, attendant: Attendant) -> None:
        self._attendants.append(attendant)

    def stop(self) -> None:
        """The engine is about to be closed: whatever is under way ends."""
        self._stopped = True

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self.engine.watch(fd)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None and not self._stopped:
            self.engine.unwatch(fd)

    def turn(self, timeout: float | None) -> bool:
        """One look at the engine; False if there was nothing. Events come before
        the clock, so a master that was stopped for a while does not take for
        late what has long arrived."""
        events = self.engine.wait(timeout)
        if not events:
            return False
        due = self._hear(events)
        if self._stopped:
            return True
        # The clock last: alone, or after a few turns that were full of events.
        self._put_off = self._put_off + 1 if due else self._put_off
        if due and (len(events) == 1 or self._put_off > PUT_OFF_MOST):
            self._put_off = 0
            self._tick(time.monotonic())
        self.work()
        return True

    def _tick(self, now: float) -> None:
        try:
            population.tick(self.population, now)
            self._not_before = 0.0
            for attendant in self._attendants:
                attendant.tick(now)
        except Exception as error:
            self._not_before = now + AFTER_ERROR
            self.containment.tick(error, now)

    def _hear(self, events: list[_engine.Event], nested: bool = False) -> bool:
        """Whether the deadline was among them. `nested`: between two commands, where
        whoever watches a descriptor may be the one that caused them."""
        due = False
        for kind, key, value, text in events:
            if kind == _engine.DEADLINE:
                due = True
            elif kind == _engine.READABLE:
                if value in self._watched and not nested:  # else: it stays readable
                    self._watched[value]()
            else:
                self._handle(kind, key, value, text or b"", time.monotonic())
                self.work()
            if self._stopped:
                break
        return due

    def _handle(self, kind: int, key: int, value: int, text: bytes, now: float) -> None:
        try:
            self.happened(kind, key, value, text, now)
        except Exception as error:
            self.containment.event(kind, key, value, error, now)

    def _do(self, command: commands.Command, now: float) -> None:
        try:
            self.carry_out(command, now)
        except Exception as error:
            self.containment.command(command, error, now)

    def _look(self, attendant: Attendant) -> None:
        try:
            attendant.look()
        except Exception as error:
            self.containment.tick(error, time.monotonic())

    def work(self) -> None:
        """Carry out the population's commands, those they cause included."""
        if self._working or self._stopped:
            return
        self._working = True
        worked = False
        try:
            while batch := slots.take(self.population):
                worked = True
                for command in batch:
                    self._do(command, time.monotonic())
                    # The first of many stand in bind already. (A deadline that is heard
                    # here is set again after the commands.)
                    if (
                        isinstance(command, commands.Spawn)
                        and command.worker % SPAWNS_AT_A_TIME == 0
                    ):
                        self._hear(self.engine.wait(0), nested=True)
        finally:
            self._working = False
        for attendant in self._attendants if worked else ():
            self._look(attendant)
        if self.population.ended is not None:
            self.ended(self.population.ended)
        elif not self._stopped:
            times = [population.deadline(self.population)]
            times += [attendant.deadline() for attendant in self._attendants]
            at = min((one for one in times if one is not None), default=None)
            self.engine.deadline(None if at is None else max(at, self._not_before))
