"""Code that serves, and dies of it, again and again, in every slot: a failed deploy. Pure.

Owns the count of early deaths. Decides nothing: each slot's backoff makes the pauses
between tries, and what is to be done is told, once for a generation.
"""

from __future__ import annotations

from .. import events
from .backoff import LEAST_HEALTHY_LIFE
from .members import Member, Slot
from .state import Population

AGAIN = 2  # deaths in a slot: one may be chance


def failed(people: Population, worker: int, error: str, nothing: bool = False) -> None:
    """The worker told why it is about to end; `nothing`: there is nothing to run."""
    people.members[worker].error = error
    if nothing:
        people.nothing = error


def died_serving(people: Population, slot: Slot, member: Member, why: str, now: float) -> None:
    """It was the serving one, and did not take leave."""
    since = member.served_at
    if since is None or now - since >= LEAST_HEALTHY_LIFE or member.leaving:
        slot.early = []
        return
    slot.early = [*(one for one in slot.early if one == member.generation), member.generation]
    generation, slots = member.generation, people.kept()
    if people.told_failing == generation or people.closing or people.reloading or people.baking:
        return
    if slots and all(_fails(one, generation, now) for one in slots):
        people.told_failing = generation
        people.tell(events.Failing(generation, why), member.id)


def _fails(slot: Slot, generation: int, now: float) -> bool:
    since = slot.serving.served_at if slot.serving else None
    healthy = since is not None and now - since >= LEAST_HEALTHY_LIFE
    return slot.early.count(generation) >= AGAIN and not healthy
