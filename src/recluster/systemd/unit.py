"""What a service manager hears of the cluster: that it serves, reloads, stops, and lives.

Owns what it was told last. `look` compares that with how things are, so whatever has led there
is told, a reload that failed at once too. Runs only when something happened, and the watchdog's
timer only where it was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .._engine import Engine
from ..base.text import one_line
from ..options import Options
from ..population.closing import WAITING_EVERY
from ..population.lifecycle import ENDED
from ..population.state import Population
from .sdnotify import Notifier
from .store import Store, room

AGAIN = 0.25  # seconds until what found the manager's queue full is tried once more
MARGIN = 5.0  # seconds of EXTEND_TIMEOUT_USEC beyond what we ourselves wait for
STATUS_MOST = 400


def _period(environ: Mapping[str, str]) -> float | None:
    """Half of what the watchdog allows (sd_watchdog_enabled(3)), if it is about us."""
    try:
        if int(environ.get("WATCHDOG_PID") or os.getpid()) != os.getpid():
            return None
        allowed = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return allowed / 2e6 if allowed > 0 else None


def open_unit(
    population: Population,
    options: Options,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> Unit | None:
    """None where nobody wants to hear, or it cannot be: then one line says so."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return None
    try:
        notifier = Notifier(address, say)
    except (OSError, ValueError) as error:
        say(f"NOTIFY_SOCKET {address}: {error}")
        return None
    return Unit(notifier, population, options, _period(environ), room(environ))


@dataclass(eq=False)
class Unit:
    """`period`: seconds between two signs of life, or None. `room`: for so many descriptors."""

    notifier: Notifier
    people: Population
    options: Options
    period: float | None
    room: int

    def __post_init__(self) -> None:
        self._beat_at = None if self.period is None else time.monotonic()
        self._is_up = self._is_reloading = self._is_stopping = False
        self._reloads = 0
        self._status = ""
        self._extended = 0.0
        self._again_at: float | None = None
        self._store: Store | None = None
        self.close = self.notifier.close

    def store(
        self, engine: Engine, restored: Mapping[int, str], reload: Callable[[], object]
    ) -> Store:
        self._store = Store(engine, self.people, self.notifier, self.room, restored, reload)
        return self._store

    def carried(self) -> list[tuple[int, str]]:
        """For the master that takes this one's place: which lanes are kept, by which names."""
        return sorted(self._store.kept.items()) if self._store else []

    def resume(self, before: list[tuple[int, str]]) -> None:
        """In that one: it is up, as it was told."""
        self._is_up, self._reloads = True, self.people.reloads
        if self._store:
            self._store.kept = dict(before)

    # ---- a clock of the pump's ------------------------------------------------------

    def deadline(self) -> float | None:
        if not self.notifier.is_behind:
            self._again_at = None
        elif self._again_at is None:
            self._again_at = time.monotonic() + AGAIN
        return min((at for at in (self._beat_at, self._again_at) if at is not None), default=None)

    def tick(self, now: float) -> None:
        self.notifier.flush()
        self._again_at = None
        if self.period is None or self._beat_at is None or now < self._beat_at:
            return
        self._beat_at = now + self.period
        if not self.notifier.is_behind:  # who does not read does not watch either
            self.notifier.send(["WATCHDOG=1"])

    # ---- what has become of it --------------------------------------------------------

    def look(self) -> None:
        people, now = self.people, time.monotonic()
        lines: list[str] = []
        if people.shutting_down:
            if not self._is_stopping:
                self._is_stopping = True
                lines.append("STOPPING=1")
        elif people.reloads != self._reloads:
            self._reloads = people.reloads
            if self._is_up:  # with the time, or Type=notify-reload waits for another
                stamp = time.monotonic_ns() // 1000
                self.notifier.send(["RELOADING=1", f"MONOTONIC_USEC={stamp}"])
                self._is_reloading = True
        if not self._is_stopping and self._is_settled():
            self._is_up, self._is_reloading = True, False
            lines += ["READY=1", f"MAINPID={os.getpid()}"]
        status = self._describe()
        if status != self._status or lines or self._is_stopping:
            lines += self._extension(now)
        if status != self._status or lines:
            self._status = status
            self.notifier.send([*lines, f"STATUS={status}"])

    def _is_settled(self) -> bool:
        """It has come up, or a reload is over, well or not; on probation the new code serves."""
        if self._is_up:
            return self._is_reloading and self.people.reloading is None
        slots = [slot for slot in self.people.slots.values() if slot.wanted]
        # Who cannot boot does not keep the others' clients from being sent here.
        tried = all(slot.serving or slot.last_error for slot in slots)
        return tried and any(slot.serving for slot in slots)

    def _extension(self, now: float) -> list[str]:
        """For as long as we ourselves wait for the next thing; a master that does not come
        back is not waited for."""
        if self._is_stopping:
            if now < self._extended:
                return []
            delay = 0.0 if self.people.closing else self.options.shutdown_delay
            self._extended = now + 1.0  # not with each worker that ends
            seconds = delay + 2 * WAITING_EVERY
        elif (self._is_up and not self._is_reloading) or self.options.ready_timeout is None:
            return []
        else:
            seconds = self.options.ready_timeout
        return [f"EXTEND_TIMEOUT_USEC={int((seconds + MARGIN) * 1e6)}"]

    def _describe(self) -> str:
        people = self.people
        if people.shutting_down:
            left = sum(one.state not in ENDED for one in people.members.values())
            return f"shutting down, {left} {'worker is' if left == 1 else 'workers are'} left"
        slots = [slot for slot in people.slots.values() if slot.wanted and not slot.surplus]
        serving = sum(slot.serving is not None for slot in slots)
        text = f"generation {people.generation}, {serving} of {len(slots)} ready"
        if people.reloading:
            text += f"; generation {people.reloading.generation} boots"
        elif people.baking:
            text += "; on probation"
        elif people.last_reload and not people.last_reload["ok"]:
            text += f"; reload failed: {people.last_reload['why']}"
        return one_line(text)[:STATUS_MOST]
