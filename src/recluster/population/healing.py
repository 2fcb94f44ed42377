"""A slot in which nobody serves takes the first that can, whatever else is under way. Pure.

A slot is dark when its worker has died and none has taken its place. What may serve there
next is `incoming` (of the reload that is under way, or a respawn) and `healing`: a respawn
that a reload found under way, or one that was begun because `incoming` takes too long.

Invariants:
- a dark slot with a worker that fits is served in the same turn;
- who is on its way in a dark slot is not ended for a reload that is new, or has failed,
  while it takes no longer than boots have taken here (but of those who share a queue, if one
  that accepts leaves: `cutover.abandon_reload`);
- both run what is on disk: of two that are ready the reload's own comes first.
"""

from __future__ import annotations

from ..base.states import State
from .commands import Inherit
from .lifecycle import Event
from .members import Member, Reload, Slot
from .slots import (
    drop,
    drop_coming,
    fits,
    new_member,
    pass_on,
    replace_at,
    spawn,
    take_over,
)
from .state import Population

BOOT_SLACK = 1.0  # seconds; a boot beside others takes longer than it did alone


def believed_until(people: Population, member: Member) -> float:
    """How long it may take to boot before another try is begun beside it: twice what
    boots have taken here. Where none is known it is not waited for."""
    longest = people.longest_boot
    return member.born if longest is None else member.born + 2 * longest + BOOT_SLACK


def set_aside(people: Population, slot: Slot, now: float) -> None:
    """A new reload begins. What is on its way in a dark slot goes on beside it; of two
    the older one, which is nearer to its end, while it can be believed in."""
    if not slot.dark:
        drop_coming(people, slot, now)
        return
    keep_one(people, slot, now)
    slot.healing, slot.incoming = slot.incoming, None


def keep_one(people: Population, slot: Slot, now: float) -> None:
    """Of what is on its way in a dark slot one goes on, as an ordinary respawn."""
    coming = [one for one in (slot.healing, slot.incoming) if one]
    if len(coming) > 1 and now >= believed_until(people, coming[0]):
        coming.reverse()
    keep = coming[0] if coming else None
    for member in slot.coming():
        if member is not keep:
            drop(people, member, now)
    slot.incoming, slot.healing = keep, None


def heal(people: Population, now: float) -> None:
    """Each dark slot gets the first of its workers that fits."""
    for slot in people.wanted():
        fit = [member for member in slot.coming() if fits(people, member, now)]
        if slot.dark and fit and not slot.surplus:
            _serve_first(people, slot, fit[0], now)


def _serve_first(people: Population, slot: Slot, member: Member, now: float) -> None:
    other = next((one for one in slot.coming() if one is not member), None)
    reload = people.reloading
    slot.incoming, slot.healing = member, None
    take_over(people, [slot], now)
    if reload and slot.index in reload.batch and member.generation == reload.generation:
        switched(reload, slot, member, now)
    elif reload and other and other.generation == reload.generation:
        slot.incoming, other = other, None  # the reload still waits for it
    drop(people, other, now)


def spawn_due(people: Population, now: float) -> None:
    """Whose time has come."""
    for slot in list(people.slots.values()):
        if slot.spawn_at is not None and slot.spawn_at <= now:
            slot.spawn_at = None
            if not slot.serving or slot.serving.leaves:
                _respawn(people, slot, now)


def _respawn(people: Population, slot: Slot, now: float) -> None:
    reload = people.reloading
    if reload is None:
        if not slot.coming():
            spawn(people, slot, people.generation, now)
    elif slot.incoming is None:  # its turn is now
        for waiting in (reload.todo, reload.unborn):
            if slot.index in waiting:
                waiting.remove(slot.index)
        reload.batch.add(slot.index)
        spawn(people, slot, reload.generation, now)
    elif slot.healing is None and people.longest_boot is not None:
        until = believed_until(people, slot.incoming)
        if now < until:
            slot.spawn_at = until
        else:
            heir_of = slot.chain[-1].id if slot.chain else 0
            slot.healing = new_member(people, slot, reload.generation, heir_of, now)


def bequeath(people: Population, slot: Slot, dead: Member) -> None:
    """Who is on its way gets what the dead one leaves, where it has not listened yet."""
    for member in slot.coming():
        if member.state is State.STARTING and not member.addresses and not member.heir_of:
            member.heir_of = dead.id
            people.do(Inherit(member.id, dead.id))


def is_booting(people: Population, worker: int) -> bool:
    member = people.members[worker]
    return member.state is State.STARTING and member in people.slots[member.slot].coming()


def start_again(people: Population, worker: int, now: float) -> None:
    """Another in the place of one that boots, by no fault of it: how workers are started
    has changed."""
    member = people.members[worker]
    slot = people.slots[member.slot]
    pass_on(people, member, Event.KILL, now)
    new = new_member(people, slot, member.generation, member.heir_of, now)
    if slot.incoming is member:
        slot.incoming = new
    else:
        slot.healing = new


def switched(reload: Reload, slot: Slot, member: Member, now: float) -> None:
    """The slot has the reload's generation."""
    seconds = (now if member.ready_at is None else member.ready_at) - member.born
    reload.verdicts[slot.index] = f"ready after {seconds:.3f} s"
    reload.after |= member.addresses
    reload.switched.add(slot.index)
    reload.batch.discard(slot.index)


def replace_leaving(people: Population, now: float, pause: float = 0.0) -> None:
    for slot in people.wanted():
        member, reload = slot.serving, people.reloading
        if not member or not member.leaves or slot.incoming or people.closing:
            continue
        if reload is None and slot.spawn_at is None:
            slot.spawn_at = max(replace_at(people, member, now), now + pause)
        elif reload and people.options.surge and slot.index not in reload.todo:
            reload.todo.append(slot.index)
