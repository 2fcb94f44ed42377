"""Slots and the workers in them: spawn, steer, retire, replace, bury. Pure.

Takes no decision that concerns more than one slot.
"""

from __future__ import annotations

from .. import events
from ..base.states import State
from . import commands as c
from .lifecycle import ENDED, Act, Event, step
from .live import live, placed, weigh
from .members import Member, Slot
from .state import Population

LOOK_EVERY = 0.1  # seconds between two looks at a retired worker's queue
LANE_GRACE = 1.0  # how long a ready worker may still open further addresses
CANCEL_GRACE = 5.0  # what a worker that never served gets between TERM and KILL
ABORT_GRACE = 2.0  # between SIGABRT and SIGKILL: to write the stack
APART = 0.05  # seconds between two of a generation that settle
HURRY_GRACE = 10.0  # between stop signal and SIGKILL when too many generations drain


def take(people: Population) -> list[c.Command]:
    """The commands since the last call, in the order to carry them out."""
    commands, people.commands = people.commands, []
    change = _change(people)
    return commands if change is None else placed(commands, change)


def _change(people: Population) -> c.Live | None:
    """What is live, if that is another than what is in force."""
    canary = bool(people.baking and people.baking.canary)
    when, reloads = people.options.ready_when, people.reloading is not None
    found = frozenset(live(people.slots.values(), when, reloads, canary) & people.members.keys())
    weights = weigh(found, people.members, people.weights, people.baking)
    if (found, weights) == (people.live, people.live_weights) and not people.refused:
        return None
    people.refused = False
    people.live, people.live_weights = found, weights
    return c.Live(people.live, weights)


def pass_on(people: Population, member: Member, event: Event, now: float) -> None:
    member.state, act = step(member.state, event)
    if act is Act.SETTLE:
        member.look_at = now + LOOK_EVERY
    elif act is Act.DRAIN:
        member.draining_since = now
        people.do(c.Disconnect(member.id))
        people.do(c.Inspect(member.id))
    elif act is Act.LEAVE:
        member.look_at = None
        if not people.killing and not member.told:
            member.left_at = now
            people.do(c.Leave(member.id))
    elif act is Act.ABORT:
        member.deadline = now + ABORT_GRACE
        people.do(c.GiveUp(member.id))
        people.do(c.Abort(member.id))
    elif act is Act.KILL:
        member.deadline = member.look_at = None
        people.do(c.Kill(member.id))


def spawn(people: Population, slot: Slot, generation: int, now: float) -> None:
    heir = slot.chain[-1] if slot.chain else None
    if not heir and not (people.reloading and slot.index in people.reloading.batch):
        heir = slot.serving
    slot.incoming = new_member(people, slot, generation, heir.id if heir else 0, now)


def new_member(
    people: Population, slot: Slot, generation: int, heir_of: int, now: float, relief: int = 0
) -> Member:
    people.last_id += 1
    patience = people.options.ready_timeout
    member = Member(
        id=people.last_id,
        slot=slot.index,
        generation=generation,
        born=now,
        heir_of=heir_of,
        relief=relief,
        deadline=None if patience is None else now + patience,
    )
    if people.recycles:
        member.lasts = 1 - people.options.jitter * people.random()
    # A relief worker takes what is left in one lane, and nothing that is new.
    party = generation if people.options.balance == "shared" and not relief else 0
    people.do(c.Spawn(member.id, slot.index, generation, heir_of, party))
    people.members[member.id] = member
    return member


def cancel(people: Population, member: Member, now: float, event: Event) -> None:
    """It never served: it owes nobody anything."""
    member.settle_until = now
    member.deadline = now + min(people.options.timeout, CANCEL_GRACE)
    pass_on(people, member, event, now)


def retire(people: Population, members: list[Member], now: float) -> None:
    settle = people.options.drain_settle
    # Not all at once: an interpreter that ends takes a CPU for a while, and
    # clients of those that serve feel it when many do.
    apart = 0.0 if people.closing or not members else min(APART, settle / len(members))
    if members:
        people.do(c.Retired(tuple(member.id for member in members)))
    for order, member in enumerate(members):
        member.hung_since = None
        member.retired_at = now
        member.settle_until = now + order * apart
        if people.closing or not member.only_unix:
            member.settle_until += settle
        if member.state is not State.ABORTED:
            member.deadline = max(now + people.options.timeout, member.settle_until)
        pass_on(people, member, Event.RETIRE, now)
    _limit_draining(people, now)


def _limit_draining(people: Population, now: float) -> None:
    """Memory is finite: the oldest of too many draining generations goes."""
    draining = [m for m in people.members.values() if m.state in (State.SETTLING, State.DRAINING)]
    generations = sorted({member.generation for member in draining})
    for generation in generations[: -people.options.max_draining]:
        people.tell(events.Hurried(generation, people.options.max_draining))
        for member in draining:
            if member.generation == generation:
                least = min(member.deadline or now, now + HURRY_GRACE)
                member.deadline = max(member.settle_until, least)
                pass_on(people, member, Event.HURRY, now)


def take_over(
    people: Population,
    slots: list[Slot],
    now: float,
    keep: bool = False,
    going: tuple[Slot, ...] = (),
) -> None:
    """The incoming workers are live from one `c.Live` command on; the old ones
    retire, or are kept (a canary's live, others ready). Slots that are `going`
    end with it."""
    old = []
    for slot in going:
        old += [member for member in (slot.serving, slot.previous) if member]
        slot.serving = slot.previous = slot.spawn_at = None
        slot.wanted = slot.surplus = False
    for slot in slots:
        before, new = slot.serving, slot.incoming
        assert new is not None
        new.deadline = new.look_at = None
        pass_on(people, new, Event.PROMOTE, now)
        new.served_at = now
        slot.serving, slot.incoming, slot.spawn_at = new, None, None
        drop(people, slot.healing, now)
        slot.healing = None
        if before and keep:
            if not (people.baking and people.baking.canary):
                if before.hung_since is not None:
                    before.hung_since = before.deadline = None
                pass_on(people, before, Event.DEMOTE, now)
            slot.previous = before
        elif before:
            old.append(before)
    retire(people, old, now)
    for slot in [*slots, *going]:
        settle_chain(people, slot)


def fits(people: Population, member: Member, now: float) -> bool:
    """Ready, and listening where it is expected to; a part of that is enough after
    a grace, and at once where nobody serves. None of it is a wrong port: never."""
    if member.state is not State.READY or member.ready_at is None or member.proving:
        return False
    wanted = expected(people, member)
    if wanted <= member.addresses:
        return True
    kept = wanted & member.addresses
    dark = people.slots[member.slot].dark
    return bool(kept) and (dark or now >= member.ready_at + LANE_GRACE)


def expected(people: Population, member: Member) -> set[str]:
    """Where a worker must listen to serve in its slot: where the one that it replaces
    does or, if that one is dead, did; in a slot that is new, where all others do. Else
    code with a wrong port would take a dark slot, and the mended code, which does not
    listen there, never could."""
    slot = people.slots[member.slot]
    if slot.serving:
        return slot.serving.addresses | (slot.serving.closed - member.closed)
    if slot.served:
        return slot.served
    others = [other.serving.addresses for other in people.wanted() if other.serving]
    return set.intersection(*others) if others else set()


def accepts(people: Population, member: Member) -> bool:
    """Whether it takes connections though it may not serve: those of its like, who have one
    queue with it. It cannot be made to stop alone, and is owed a drain as who serves is."""
    return people.options.balance == "shared" and member.listened and not member.relief


def drop_coming(people: Population, slot: Slot, now: float) -> None:
    dropped = slot.coming()
    slot.incoming = slot.healing = None
    for member in dropped:
        drop(people, member, now)


def drop(people: Population, member: Member | None, now: float) -> None:
    if not member or member.state not in (State.STARTING, State.READY):
        return
    if accepts(people, member):
        pass_on(people, member, Event.READY, now)
        retire(people, [member], now)
    else:
        cancel(people, member, now, Event.RETIRE)


def settle_chain(people: Population, slot: Slot) -> None:
    """The dead of this slot have a successor, or will not get one."""
    chain, slot.chain = slot.chain, []
    for member in chain:
        if member.state is State.GONE:
            people.do(c.Inspect(member.id))


def plan_spawn(people: Population, slot: Slot, ended: Member, now: float) -> None:
    # A ready one that waited long for its siblings has not proved itself by that.
    since = ended.served_at or ended.ready_at
    ready_for = None if since is None else now - since
    if ended.leaves:  # nothing has failed
        at = replace_at(people, ended, now)
    else:
        at = slot.backoff.next_spawn(now, ended.born, ready_for, people.random)
    if ended.left_waiting and ended.served_at is not None:
        at = now
    if slot.wanted and not slot.surplus and not people.closing:
        if people.reloading and slot.dark and slot.index in people.reloading.switched:
            people.reloading.batch.add(slot.index)  # it is waited for once more
        _respawn_at(people, slot, at)


def replace_at(people: Population, member: Member, now: float) -> float:
    return max(now, member.born + people.options.respawn)


def boot_failed(people: Population, slot: Slot, member: Member, now: float) -> None:
    people.failures += 1
    plan_spawn(people, slot, member, now)


def relieve(people: Population, member: Member, queued: int, now: float) -> None:
    """A retired worker died and left connections waiting: somebody must
    accept them who is not steered to."""
    slot = people.slots[member.slot]
    people.tell(events.Relief(queued), member.id)
    member.relief += 1  # counts the attempts of the queue, whoever holds it
    new_member(people, slot, people.generation, member.id, now, relief=member.relief)


def release_heirs_of(people: Population, member: Member) -> None:
    heir = people.members.get(member.heir_of)
    while heir is not None and heir.state is State.GONE:
        following = people.members.get(heir.heir_of)
        people.do(c.Release(heir.id))
        del people.members[heir.id]
        heir = following


def release(people: Population, member: Member) -> None:
    people.do(c.Release(member.id))
    del people.members[member.id]
    finish_if_empty(people)


def finish_if_empty(people: Population) -> None:
    if not people.closing or people.ended is not None:
        return
    waited_for = people.members.values()
    if people.killing:
        left = any(member.state not in ENDED for member in waited_for)
    else:
        left = bool(people.members)
    if not left:
        people.ended = people.code
        people.do(c.Ended(people.code))


def _respawn_at(people: Population, slot: Slot, at: float) -> None:
    """When a slot whose worker has died gets another. A reload's own is believed in
    first (`_respawn`)."""
    if people.reloading is None and slot.coming():
        return
    if slot.healing is None:
        slot.spawn_at = at
