"""Workers that are replaced because they are old, large or worn. Pure.

One at a time, its successor first, and never while a reload is under way or on probation: who
is due waits. Nothing is looked at, and no timer runs, unless a limit is set.

Invariant: of the workers that serve at most one is being recycled.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import events
from ..options import Options
from .commands import Measure
from .lifecycle import ENDED
from .members import Member, Slot
from .sizing import Sizing

MEASURE_EVERY = 10.0  # seconds


class Recycling(Sizing):
    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        super().__init__(options, random)
        self._due: dict[int, events.Recycle] = {}  # worker -> why, the longest due first
        self._recycled: Member | None = None
        self._next_at: float | None = None
        self._measure_at: float | None = None

    def _new_member(
        self, slot: Slot, generation: int, heir_of: int, now: float, relief: int = 0
    ) -> Member:
        member = super()._new_member(slot, generation, heir_of, now, relief)
        if self._limits():
            member.lasts = 1 - self.options.jitter * self._random()
        return member

    def _limits(self) -> bool:
        options = self.options
        return bool(options.max_lifetime or options.max_rss or options.max_connections)

    def measured(self, worker: int, memory: int | None, accepted: int | None, now: float) -> None:
        """The answer to Measure; None: it cannot be known."""
        member = self.members.get(worker)
        if member is None or self.slots[member.slot].serving is not member:
            return
        options = self.options
        if options.max_rss and memory is not None and memory > options.max_rss * member.lasts:
            self._is_due(member, "rss", memory, options.max_rss)
        most = options.max_connections
        if most and accepted is not None and accepted >= most * member.lasts:
            self._is_due(member, "connections", accepted, most)
        self._recycle(now)

    def _is_due(self, member: Member, why: str, value: float, limit: float) -> None:
        self._due.setdefault(member.id, events.Recycle(why, value, limit))

    def _expires_at(self, member: Member) -> float | None:
        if not self.options.max_lifetime or member.served_at is None or member.id in self._due:
            return None
        return member.served_at + self.options.max_lifetime * member.lasts

    def _advance(self, now: float) -> None:
        super()._advance(now)
        if self._limits() or self._due or self._measure_at is not None:
            self._measure(now)
            self._expire(now)
            self._recycle(now)

    def _expire(self, now: float) -> None:
        for member in self._old_enough():
            at = self._expires_at(member)
            if at is not None and now >= at and member.served_at is not None:
                limit = self.options.max_lifetime or 0.0
                self._is_due(member, "lifetime", now - member.served_at, limit)

    def _old_enough(self) -> list[Member]:
        """Those that serve, and are not on their way out."""
        serving = [slot.serving for slot in self._kept() if slot.serving]
        return [member for member in serving if not member.leaves]

    def _recycle(self, now: float) -> None:
        serving = {member.id: member for member in self._old_enough()}
        for worker in [one for one in self._due if one not in serving]:
            del self._due[worker]
        before, self._next_at = self._recycled, None
        if before and self.slots[before.slot].serving is before and before.state not in ENDED:
            return
        if before:  # the next in a turn of its own: what has happened is told first
            self._recycled, self._next_at = None, now
            return
        if not self._due or self.shutting_down or self.reloading or self.baking:
            return
        worker = next(iter(self._due))
        member = self._recycled = serving[worker]
        self._tell(self._due.pop(worker), worker)
        member.leaving = True
        self._replace_leaving(now)

    # ---- time --------------------------------------------------------------------

    def _wear_at(self) -> float | None:
        """When something has to be looked at."""
        if not self._limits() or self.shutting_down:
            return None
        times = [self._expires_at(member) for member in self._old_enough()]
        times += [self._measure_at, self._next_at]
        return min((at for at in times if at is not None), default=None)

    def _measure(self, now: float) -> None:
        if not (self.options.max_rss or self.options.max_connections):
            self._measure_at = None
        elif self._measure_at is None:
            self._measure_at = now + MEASURE_EVERY
        elif now >= self._measure_at:
            self._measure_at = now + MEASURE_EVERY
            for member in self._old_enough():
                if member.id not in self._due:
                    self.do(Measure(member.id))
