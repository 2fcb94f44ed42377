"""How many slots there are, what each weighs, and one of them at a time. Pure.

A drained slot is not wanted, as one that was scaled away, but it keeps its place: it comes
back by `resume`, not by a reload or by scaling up.

Invariant: of the slots that are left at least one may get new connections.
"""

from __future__ import annotations

from collections.abc import Collection

from .advancing import advance
from .backoff import Backoff
from .cutover import next_batch
from .healing import spawn_due
from .members import Slot
from .reloading import take_away
from .slots import drop_coming, retire, settle_chain, spawn
from .state import Population

SHARED = "not with balance shared: its workers have one queue; reload replaces them all"


def scale(people: Population, count: int, now: float) -> str | None:
    """Have that many slots; those above drain. Returns why not."""
    if people.closing:
        return None
    left = [index for index in range(count) if not _drained(people, index)]
    if not left:
        return "all that would be left are drained: resume one first"
    why = cannot_weigh(people.weights, left)
    if why:
        return why
    probation = people.baking or people.reloading
    if people.options.balance == "shared" and probation and probation.canary:
        return "not while a canary is on probation: promote it or roll it back first"
    resize(people, count, now)
    advance(people, now)
    return None


def revised(people: Population) -> None:
    """The options have other values."""
    for slot in people.slots.values():
        slot.backoff.floor = people.options.respawn
        slot.backoff.ceiling = people.options.backoff


def weigh(people: Population, weights: dict[int, float]) -> str | None:
    """Give these slots these weights. Returns why not."""
    together = {**people.weights, **weights}
    why = cannot_weigh(together, [slot.index for slot in people.kept()])
    if why is None and not people.closing:
        people.weights = together
    return why


def cannot_weigh(weights: dict[int, float], slots: Collection[int]) -> str | None:
    if any(weights.get(index, 1.0) for index in slots):
        return None
    return f"the weights of all {len(slots)} slots would be 0: nobody would get a connection"


# ---- one slot ----------------------------------------------------------------
def restart(people: Population, index: int, now: float) -> str | None:
    """Replace its worker, the successor first. Returns why not."""
    slot, why = _asked_for(people, index)
    if slot is None:
        return why
    if slot.serving is None:
        if not slot.coming():
            slot.spawn_at = now
    elif people.options.balance == "shared":
        return SHARED
    else:
        slot.serving.leaving = True
        if not slot.coming():
            slot.spawn_at = now
    spawn_due(people, now)
    advance(people, now)
    return None


def drain(people: Population, index: int, now: float) -> str | None:
    """Retire its worker; nobody comes until `resume`. Returns why not."""
    slot, why = _asked_for(people, index)
    if slot is None:
        return why
    if people.options.balance == "shared":
        return SHARED
    others = [other for other in people.kept() if other is not slot]
    if not any(other.serving for other in others):
        return "no other slot serves"
    why = cannot_weigh(people.weights, [other.index for other in others])
    if why:
        return why
    slot.drained = True
    _empty(people, slot, now)
    advance(people, now)
    return None


def resume(people: Population, index: int, now: float) -> str | None:
    """Fill a drained slot again. Returns why not."""
    if people.closing:
        return "the cluster is shutting down"
    if not _drained(people, index):
        return "it is not drained"
    slot = people.slots[index]
    slot.drained = False
    _fill(people, slot, now)
    advance(people, now)
    return None


def _asked_for(people: Population, index: int) -> tuple[Slot | None, str | None]:
    slot = people.slots.get(index)
    if people.closing:
        return None, "the cluster is shutting down"
    if people.reloading:
        return None, "a reload is under way"
    if slot is not None and slot.drained:
        return None, "it is drained: resume it"
    if slot is None or not slot.wanted:
        return None, "there is no such slot"
    return slot, None


def _drained(people: Population, index: int) -> bool:
    slot = people.slots.get(index)
    return slot is not None and slot.drained


# ---- inside --------------------------------------------------------------------
def resize(people: Population, count: int, now: float) -> None:
    for index in range(count):
        slot = people.slots.get(index)
        if slot is None:
            backoff = Backoff(people.options.respawn, people.options.backoff)
            slot = people.slots[index] = Slot(index, backoff, wanted=False)
        if not slot.drained and (not slot.wanted or slot.surplus):
            _fill(people, slot, now)
    for slot in people.slots.values():
        slot.drained = slot.drained and slot.index < count
    shared, away = people.options.balance == "shared", []
    for slot in people.kept():
        if slot.index >= count and shared and slot.serving:
            away.append(slot)
        elif slot.index >= count:
            _empty(people, slot, now)
    take_away(people, away, now)


def _fill(people: Population, slot: Slot, now: float) -> None:
    new, slot.surplus = not slot.surplus, False
    slot.wanted = True
    if people.reloading:
        people.reloading.todo.append(slot.index)
        if not people.options.surge:
            next_batch(people, people.reloading, now)
    elif new:
        spawn(people, slot, people.generation, now)


def _empty(people: Population, slot: Slot, now: float) -> None:
    slot.wanted, slot.spawn_at = False, None
    drop_coming(people, slot, now)
    leaving = [member for member in (slot.serving, slot.previous) if member]
    slot.serving = slot.previous = None
    if people.reloading:
        people.reloading.batch.discard(slot.index)
    retire(people, leaving, now)
    settle_chain(people, slot)
