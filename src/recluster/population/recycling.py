"""Workers that are replaced because they are old, large or worn. Pure.

One at a time, its successor first, and never while a reload is under way or on probation: who
is due waits. Nothing is looked at, and no timer runs, unless a limit is set.

Invariant: of the workers that serve at most one is being recycled.
"""

from __future__ import annotations

from .. import events
from .commands import Measure
from .healing import replace_leaving
from .lifecycle import ENDED
from .members import Member
from .state import Population

MEASURE_EVERY = 10.0  # seconds


def measured(
    people: Population, worker: int, memory: int | None, accepted: int | None, now: float
) -> None:
    """The answer to Measure; None: it cannot be known."""
    member = people.members.get(worker)
    if member is None or people.slots[member.slot].serving is not member:
        return
    options = people.options
    if options.max_rss and memory is not None and memory > options.max_rss * member.lasts:
        _is_due(people, member, "rss", memory, options.max_rss)
    most = options.max_connections
    if most and accepted is not None and accepted >= most * member.lasts:
        _is_due(people, member, "connections", accepted, most)
    _recycle(people, now)


def _is_due(people: Population, member: Member, why: str, value: float, limit: float) -> None:
    people.due.setdefault(member.id, events.Recycle(why, value, limit))


def _expires_at(people: Population, member: Member) -> float | None:
    if not people.options.max_lifetime or member.served_at is None or member.id in people.due:
        return None
    return member.served_at + people.options.max_lifetime * member.lasts


def _expire(people: Population, now: float) -> None:
    for member in _old_enough(people):
        at = _expires_at(people, member)
        if at is not None and now >= at and member.served_at is not None:
            limit = people.options.max_lifetime or 0.0
            _is_due(people, member, "lifetime", now - member.served_at, limit)


def _old_enough(people: Population) -> list[Member]:
    """Those that serve, and are not on their way out."""
    serving = [slot.serving for slot in people.kept() if slot.serving]
    return [member for member in serving if not member.leaves]


def _recycle(people: Population, now: float) -> None:
    serving = {member.id: member for member in _old_enough(people)}
    for worker in [one for one in people.due if one not in serving]:
        del people.due[worker]
    before, people.next_at = people.recycled, None
    if before and people.slots[before.slot].serving is before and before.state not in ENDED:
        return
    if before:  # the next in a turn of its own: what has happened is told first
        people.recycled, people.next_at = None, now
        return
    if not people.due or people.shutting_down or people.reloading or people.baking:
        return
    worker = next(iter(people.due))
    member = people.recycled = serving[worker]
    people.tell(people.due.pop(worker), worker)
    member.leaving = True
    replace_leaving(people, now)


# ---- time --------------------------------------------------------------------
def wear_at(people: Population) -> float | None:
    """When something has to be looked at."""
    if not people.recycles or people.shutting_down:
        return None
    times = [_expires_at(people, member) for member in _old_enough(people)]
    times += [people.measure_at, people.next_at]
    return min((at for at in times if at is not None), default=None)


def _measure(people: Population, now: float) -> None:
    if not (people.options.max_rss or people.options.max_connections):
        people.measure_at = None
    elif people.measure_at is None:
        people.measure_at = now + MEASURE_EVERY
    elif now >= people.measure_at:
        people.measure_at = now + MEASURE_EVERY
        for member in _old_enough(people):
            if member.id not in people.due:
                people.do(Measure(member.id))


def wear(people: Population, now: float) -> None:
    """Who is worn by now."""
    if people.recycles or people.due or people.measure_at is not None:
        _measure(people, now)
        _expire(people, now)
        _recycle(people, now)
