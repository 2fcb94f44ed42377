"""Who listens where, and who gives a lane up. Pure.

A worker that stops listening while it lives is replaced first: it stays the serving
one of its slot until its successor is ready, and that gets the queue of its lane.
"""

from __future__ import annotations

from collections.abc import Iterable

from .. import events
from .advancing import advance
from .healing import replace_leaving
from .holding import claimed
from .members import Member
from .slots import LANE_GRACE, fits, retire
from .state import Population

TOGETHER = 1.5  # seconds; who looks at its files once a second sees a change that much apart


def deaf(people: Population, worker: int, address: str, partly: bool, now: float) -> None:
    """The worker, alive, has given a lane up; `partly`: it has others there.
    What it closes before it has found its addresses is part of its start."""
    member = people.members[worker]
    slot = people.slots[member.slot]
    if member.hung_since is not None:  # now it is known why
        member.hung_since = member.deadline = None
    if not partly:
        member.addresses.discard(address)
    if not _starts(member, now) or (member.ready_at is not None and not member.addresses):
        member.closed.add(address)
    if slot.serving is member and address in member.closed:
        people.tell(events.Deaf(address), worker)
        _restarts(people, slot.index, now)
        # One of several processes may have ended; its like comes soon.
        replace_leaving(people, now, LANE_GRACE if partly else 0.0)
    elif slot.incoming is member and member.deadline is None and not fits(people, member, now):
        patience = people.options.ready_timeout  # once more: it had been in time
        member.deadline = None if patience is None else now + patience
    elif slot.previous is member and address in member.closed:
        slot.previous = None  # nothing to go back to
        retire(people, [member], now)
    advance(people, now)


def unseen(people: Population, worker: int, addresses: Iterable[str]) -> None:
    """Where it listens though no door has seen it: nothing can be done, but to say so."""
    member = people.members[worker]
    for address in addresses:
        if address not in member.unseen:
            member.unseen.add(address)
            people.tell(events.Unseen(address), worker)


def shared(people: Population, places: Iterable[tuple[str, int, bool]]) -> None:
    """(address, how many, unsure): all where listeners of others are among the lanes."""
    before, people.shared = people.shared, set(places)
    for address, listeners, unsure in sorted(people.shared - before):
        people.tell(events.Shared(address, listeners, unsure))


def _restarts(people: Population, index: int, now: float) -> None:
    """A worker has stopped listening, or listens anew. When all do so at once and nobody
    has asked for a reload, it is mostly the program that watches its files."""
    people.stopped_at[index] = now
    wanted = [slot.index for slot in people.wanted()]
    together = [now - people.stopped_at.get(slot, -TOGETHER - 1) <= TOGETHER for slot in wanted]
    if len(wanted) > 1 and all(together) and not people.reloading and not people.closing:
        people.stopped_at.clear()
        people.tell(events.RestartTogether(len(wanted)))


def attends(people: Population, member: Member, address: str, now: float) -> None:
    if address in member.addresses and not _starts(member, now):
        _restarts(people, member.slot, now)
    claimed(people, address)
    member.addresses.add(address)
    member.listened = True
    member.closed.discard(address)
    if _starts(member, now):
        member.closed.clear()


def _starts(member: Member, now: float) -> bool:
    return member.ready_at is None or now < member.ready_at + LANE_GRACE
