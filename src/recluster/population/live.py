"""Who gets new connections, and what part: a function of how things are. Pure.

Nobody asks for it: `Slots.take` computes it once a turn and compares it with what is in force.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .commands import CloseLanes, Command, Live, Spawn
from .lifecycle import ENDED
from .members import Member, Reload, Slot


def live(slots: Collection[Slot], ready_when: str, reloading: bool, canary: bool) -> set[int]:
    """The workers that steering may choose."""
    serving = {slot.serving.id for slot in slots if slot.serving}
    found = serving | {member.id for slot in slots for member in slot.chain}
    if canary:
        found |= {slot.previous.id for slot in slots if slot.previous}
    # A lane that appears in a slot without a worker is wanted at once, where listening is
    # what readiness means, or while nobody serves: there a client waits for who boots, as
    # it would without us.
    if not reloading and (ready_when == "listening" or (ready_when == "accepting" and not serving)):
        found |= {slot.incoming.id for slot in slots if slot.incoming and not slot.serving}
    return found


def weigh(
    found: Collection[int],
    members: Mapping[int, Member],
    weights: Mapping[int, float],
    probation: Reload | None,
) -> dict[int, float]:
    """Each worker's weight, if it is not 1: its slot's; beside a canary so that the canary's
    add up to its part, the others' to the rest."""
    canary = probation.canary if probation else None
    if not weights and not canary:
        return {}
    those = [members[worker] for worker in sorted(found)]
    parts = {member.id: weights.get(member.slot, 1.0) for member in those}
    if probation and canary:
        sums = {True: 0.0, False: 0.0}
        for member in those:
            if member.state not in ENDED:
                sums[member.generation == probation.generation] += parts[member.id]
        for member in those:
            new = member.generation == probation.generation
            if sums[True] and sums[False]:
                parts[member.id] *= (canary if new else 1 - canary) / sums[new]
    return {worker: weight for worker, weight in parts.items() if weight != 1}


def placed(commands: list[Command], change: Live) -> list[Command]:
    """The commands of a turn with the change among them: behind the spawns of whom it names
    and the closing of lanes, before whatever is noted, told or asked of those it takes away."""
    first = [
        one
        for one in commands
        if isinstance(one, CloseLanes) or (isinstance(one, Spawn) and one.worker in change.workers)
    ]
    moved = {id(one) for one in first}
    return [*first, change, *(one for one in commands if id(one) not in moved)]
