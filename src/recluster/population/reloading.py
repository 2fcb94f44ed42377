"""Reloads, as they are asked for: begun, refused, promoted, rolled back. Pure."""

from __future__ import annotations

from .advancing import advance
from .cutover import abandon_reload, baked, next_batch, roll_back, tell_reload
from .healing import set_aside
from .members import Reload, Slot
from .slots import accepts, drop_coming
from .state import Population


def reload(people: Population, now: float, canary: float | None = None) -> int:
    """Replace all workers by a new generation, which with `canary` gets that
    part of new connections until `promote` or `rollback`. Returns the reload's
    number."""
    going = [slot for slot in people.wanted() if slot.surplus]
    why = None
    if people.closing:
        why = "the cluster is shutting down"
    elif going and canary:
        why = "slots are being taken away"
    if why:
        return refuse(people, why, now)
    people.reloads += 1
    number = people.reloads
    if people.reloading:
        abandon_reload(people, "superseded by a newer reload", now)
    if people.baking and people.baking.canary:  # nobody has said that it is good
        roll_back(people, "superseded by a newer reload", now)
    elif people.baking:
        baked(people, now)
    people.last_generation += 1
    people.reloading = Reload(people.last_generation, now, number, canary=canary)
    for slot in going:
        slot.surplus, slot.spawn_at = True, None
    for slot in people.kept():
        set_aside(people, slot, now)
        slot.spawn_at = None
        people.reloading.todo.append(slot.index)
        old = slot.serving
        people.reloading.before |= old.addresses | old.closed if old else set()
    next_batch(people, people.reloading, now)
    advance(people, now)
    return number


def refuse(people: Population, why: str, now: float) -> int:
    """A reload that cannot begin: told as one that failed. Returns its number."""
    people.reloads += 1
    tell_reload(people, Reload(0, now, people.reloads), False, why, now)
    return people.reloads


def promote(people: Population, now: float, number: int | None = None) -> str | None:
    """End the probation: the new generation gets all. Returns why not."""
    if people.baking and number in (None, people.baking.number):
        baked(people, now)
        return None
    if people.reloading and number in (None, people.reloading.number):
        return f"generation {people.reloading.generation} does not serve yet"
    return "no generation is on probation"


def rollback(people: Population, now: float, number: int | None = None) -> str | None:
    """End the probation, or the reload that leads to it: the old generation
    gets all. Returns why not."""
    if people.reloading and number in (None, people.reloading.number):
        abandon_reload(people, "rolled back", now)
    elif people.baking and number in (None, people.baking.number):
        roll_back(people, "as asked", now)
    else:
        return "no generation is on probation"
    advance(people, now)
    return None


def take_away(people: Population, slots: list[Slot], now: float) -> None:
    """Of workers that share a lane none can be made to stop accepting alone:
    the socket is the others' too. So slots go at the cutover of a reload: a newer one, if one
    that accepts is of the one under way."""
    if people.reloading and any(_brings(people.reloading, people, slot) for slot in slots):
        slots = [*(slot for slot in people.wanted() if slot.surplus), *slots]
        abandon_reload(people, "superseded: slots are taken away", now)
    for slot in slots:
        slot.surplus, slot.spawn_at = True, None
        drop_coming(people, slot, now)
        if people.reloading:
            people.reloading.batch.discard(slot.index)
            if slot.index in people.reloading.todo:
                people.reloading.todo.remove(slot.index)
    if slots and not people.reloading:
        reload(people, now)


def _brings(reload: Reload, people: Population, slot: Slot) -> bool:
    """A worker that accepts, or would as soon as one of its like serves."""
    there = [*slot.coming(), *([slot.serving] if slot.serving else [])]
    return any(one.generation == reload.generation and accepts(people, one) for one in there)
