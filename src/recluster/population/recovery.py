"""A population whose handling of an event has failed half-way, made whole again. Pure.

For what cannot happen and did. Invariants that `repair` brings back:
- no place of a slot is held by a worker that has ended, or that nobody knows;
- a wanted slot in which nobody serves or comes has a spawn planned;
- a reload waits only for workers that are there;
- a shutdown goes on to its end;
- a worker without a place in a slot is on its way out, and looked at until it is gone.
"""

from __future__ import annotations

from ..base.states import State
from .closing import GONE_GRACE, LEAVING, limit_shutdown
from .commands import Kill, Release
from .cutover import abandon_reload
from .lifecycle import ENDED
from .members import Member, Slot
from .slots import LOOK_EVERY, drop, drop_coming, finish_if_empty, retire, settle_chain
from .state import Population

PLACES = ("serving", "incoming", "healing", "previous")
LOOKED_AT = frozenset({State.SETTLING, State.DRAINING, State.GONE})
CANNOT = "the master could not handle what happened"


def forget(people: Population, worker: int, now: float) -> None:
    """It has ended, and handling that has failed: its queue has no heir."""
    member = people.members.pop(worker, None)
    if member is not None:
        for slot in people.slots.values():
            if member in slot.chain:
                slot.chain.remove(member)
        people.do(Release(worker))
    repair(people, now)


def repair(people: Population, now: float) -> None:
    for slot in people.slots.values():
        for place in PLACES:
            _clear_if_ended(people, slot, place)
    _abandon_if_nobody_comes(people, now)
    for slot in people.wanted():
        waits = people.reloading and slot.index in (
            *people.reloading.unborn,
            *people.reloading.todo,
        )
        if not (slot.serving or slot.coming() or slot.spawn_at is not None or waits):
            slot.spawn_at = now + people.options.respawn
        if slot.serving and slot.chain:  # a cutover went half-way
            settle_chain(people, slot)
    if people.closing:
        _close_again(people, now)
    _see_to_the_others(people, now)
    finish_if_empty(people)


def _close_again(people: Population, now: float) -> None:
    """A shutdown leaves nobody in a slot, and has an end."""
    leaving: list[Member] = []
    for slot in people.slots.values():
        slot.wanted, slot.spawn_at = False, None
        drop_coming(people, slot, now)
        leaving += [member for member in (slot.serving, slot.previous) if member]
        slot.serving = slot.previous = None
        settle_chain(people, slot)
    retire(people, leaving, now)
    if leaving or not people.close_by:
        limit_shutdown(people, now)
    for member in people.members.values():
        if member.state is State.DEAD and member.deadline is None:
            member.deadline = now + GONE_GRACE


def _see_to_the_others(people: Population, now: float) -> None:
    """Whoever has no place in a slot is on its way out, and watched."""
    placed: set[int] = set()
    for slot in people.slots.values():
        at = [getattr(slot, place) for place in PLACES]
        placed.update(member.id for member in (*at, *slot.chain) if member)
    for member in [one for one in people.members.values() if one.id not in placed]:
        if member.state in LOOKED_AT:
            member.look_at = member.look_at or now + LOOK_EVERY
        elif member.state is State.SERVING:
            retire(people, [member], now)
        elif not member.relief:
            drop(people, member, now)
        if member.state is State.KILLED:
            people.do(Kill(member.id))
        elif member.state in LEAVING:
            member.deadline = member.deadline or now + people.options.timeout


def _clear_if_ended(people: Population, slot: Slot, place: str) -> None:
    member: Member | None = getattr(slot, place)
    if member is None:
        return
    known = people.members.get(member.id) is member
    if known and member.state not in ENDED:
        return
    setattr(slot, place, None)
    if known and place == "serving":
        slot.chain.append(member)


def _abandon_if_nobody_comes(people: Population, now: float) -> None:
    reload = people.reloading
    if reload is None:
        return
    for index in reload.batch:
        if index not in reload.unborn and people.slots[index].incoming is None:
            abandon_reload(people, f"worker {index}: {CANNOT}", now)
            return
