"""What has happened since the master began, counted: for metrics.

Owns the counts. Is told each notice, and by `spent` what a worker has used at its end; never
forgets a slot, for a counter that goes away and comes back makes rates wrong.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..base.states import State
from ..events import Event, Exit, Hung, Online, Recycle, Reload

# Upper bounds of reloads' seconds: a handful of imports, a big application, a slow start.
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
REASONS = ("asked", "boot", "ended", "error", "signal", "hung", "killed")
RESULTS = ("ok", "failed", "rolled_back")

VALUES = ("changes", "began", "within", "reload_seconds", "last_reload")
TABLES = ("starts", "exits", "last_exit", "hangs", "recycles", "reloads", "cpu", "accepted")

TUPLES = ("last_reload",)

Spent = Callable[[int], "tuple[float, int | None]"]


def _tupled(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def reason_of(event: Exit) -> str:
    """Why a worker ended, as one of REASONS, from its `exit` event."""
    was = event.was
    if was is State.ABORTED:
        return "hung"
    if was is State.KILLED and not event.overdue:
        return "killed"
    if event.asked:
        return "asked"
    if was is State.STARTING or event.overdue:
        return "boot"
    if event.signal is not None:
        return "signal"
    return "error" if event.code else "ended"


def how_of(event: Exit) -> str:
    """How a worker ended, in a word or two: SIGKILL, code 1, asked, boot: code 1."""
    reason = reason_of(event)
    if reason in ("asked", "hung"):
        return reason
    how = event.signal or f"code {event.code}"
    return f"boot: {how}" if reason == "boot" else how


def result_of(event: Reload) -> str:
    """How a reload went, as one of RESULTS."""
    if event.ok:
        return "ok"
    return "rolled_back" if event.changed else "failed"


class Tally:
    """`changes` grows with each notice: what was computed before may be old."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.spent: Spent = lambda key: (0.0, None)
        self.changes = 0
        self.began = wall()
        self.starts: Counter[int] = Counter()  # by slot
        self.exits: Counter[tuple[int, str]] = Counter()  # by slot and reason
        self.last_exit: dict[int, tuple[float, str]] = {}  # by slot: when (monotonic), and how
        self.hangs: Counter[int] = Counter()
        self.recycles: Counter[tuple[int, str]] = Counter()  # by slot and reason
        self.reloads: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self.within = [0] * len(BUCKETS)  # reloads that went well, by how long they took
        self.reload_seconds = 0.0
        self.last_reload: tuple[float, bool] | None = None  # when, and whether it went well
        self.cpu: dict[int, float] = {}  # by slot, of workers that have ended
        self.accepted: dict[int, int] = {}  # the same; only where somebody counts them

    def notice(self, event: Event, key: int) -> None:
        self.changes += 1
        slot = event.worker.id if event.worker else None
        if isinstance(event, Reload):
            self._reloaded(event)
        elif slot is None:
            return
        elif isinstance(event, Online):
            self.starts[slot] += 1
        elif isinstance(event, Hung):
            self.hangs[slot] += 1
        elif isinstance(event, Recycle):
            self.recycles[slot, event.why] += 1
        elif isinstance(event, Exit):
            self.exits[slot, reason_of(event)] += 1
            self.last_exit[slot] = time.monotonic(), how_of(event)
            cpu, accepted = self.spent(key)
            self.cpu[slot] = self.cpu.get(slot, 0.0) + cpu
            if accepted is not None:
                self.accepted[slot] = self.accepted.get(slot, 0) + accepted

    # ---- for the master that takes this one's place ------------------------------------

    def carried(self) -> dict[str, Any]:
        """JSON can say it."""
        found = {name: getattr(self, name) for name in VALUES}
        return {**found, **{name: list(getattr(self, name).items()) for name in TABLES}}

    def resume(self, before: Mapping[str, Any]) -> None:
        for name in VALUES:
            setattr(self, name, _tupled(before[name]) if name in TUPLES else before[name])
        for name in TABLES:
            table = {_tupled(key): _tupled(value) for key, value in before[name]}
            getattr(self, name).update(table)

    def _reloaded(self, event: Reload) -> None:
        self.reloads[result_of(event)] += 1
        self.last_reload = self._wall(), event.ok
        if event.ok:
            self.reload_seconds += event.seconds
            for at, bound in enumerate(BUCKETS):
                self.within[at] += event.seconds <= bound
