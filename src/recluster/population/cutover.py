"""Reloads: a new generation takes over in one step, or nothing changes. Pure.

All at once, slot by slot (`surge`), or on probation: `bake`, where the old
generation waits, and a canary, where it serves on beside the new one.
"""

from __future__ import annotations

from .. import events
from ..base.states import State
from . import slots
from .commands import GiveUp
from .healing import believed_until, heal, keep_one, switched
from .lifecycle import RETIRED, Event
from .members import Member, Reload, Slot
from .state import Population

HINT = (
    "workers that serve may be in its way: a check that its port is free, a pid file? "
    "Put WORKER_ID and RECLUSTER_GENERATION into such names, or turn the check off"
)


def proceed(people: Population, now: float) -> None:
    kept = any(slot.previous for slot in people.slots.values())
    if people.baking and people.baking.canary and not kept:
        baked(people, now)  # there is nothing left to go back to
    heal(people, now)
    if people.reloading:
        _boot_more(people, people.reloading, now)
        while people.reloading and _cut_over_if_complete(people, people.reloading, now):
            pass
    else:
        for slot in people.wanted():
            if slot.incoming and slots.fits(people, slot.incoming, now):
                slots.take_over(people, [slot], now)
    if people.killing:
        slots.finish_if_empty(people)


def next_batch(people: Population, reload: Reload, now: float) -> None:
    size = people.options.surge or len(reload.todo)
    turn, reload.todo = reload.todo[:size], reload.todo[size:]
    for index in turn:
        slot = people.slots[index]
        if slot.wanted and not slot.incoming:
            reload.batch.add(index)
            reload.unborn.append(index)
    _boot_more(people, reload, now)


def _boot_more(people: Population, reload: Reload, now: float) -> None:
    """A booting program takes the CPUs from the workers that serve, so only so
    many boot at a time; but where nobody serves, at once."""
    incoming = [people.slots[index].incoming for index in reload.batch]
    booting = sum(member is not None and member.state is State.STARTING for member in incoming)
    for index in sorted(reload.unborn, key=lambda index: not people.slots[index].dark):
        slot = people.slots[index]
        wanted = index in reload.batch and not slot.incoming
        if wanted and slot.healing and now < believed_until(people, slot.healing):
            continue  # it may serve sooner than one that is born now
        if wanted and not slot.dark and booting >= people.options.boots:
            break
        reload.unborn.remove(index)
        if wanted:
            slots.spawn(people, slot, reload.generation, now)
            booting += 1


def _cut_over_if_complete(people: Population, reload: Reload, now: float) -> bool:
    """True if a batch was switched and another begun."""
    batch = [people.slots[index] for index in sorted(reload.batch)]
    for slot in batch:
        if slot.incoming is None or not slots.fits(people, slot.incoming, now):
            return False
    for slot in batch:
        assert slot.incoming is not None
        switched(reload, slot, slot.incoming, now)
    reload.cut_over_at = now
    last = not reload.todo
    going = tuple(slot for slot in people.wanted() if slot.surplus and last)
    bake = 0.0 if going or reload.canary else people.options.bake
    if last:
        people.reloading = None
        if reload.canary:
            people.baking = reload  # from the first `Live` on
    slots.take_over(people, batch, now, keep=bool(bake or reload.canary), going=going)
    if not last:
        next_batch(people, reload, now)
        return True
    people.generation = reload.generation
    if reload.canary:
        people.tell(events.Canary(reload.generation, part=reload.canary, number=reload.number))
        proceed(people, now)
    elif bake:
        reload.bake_until = now + bake
        people.baking = reload
        people.tell(events.Baking(reload.generation, bake))
    else:
        _succeeded(people, reload, now)
    return False


def _succeeded(people: Population, reload: Reload, now: float) -> None:
    came, went = reload.after - reload.before, reload.before - reload.after
    tell_reload(people, reload, True, None, now, came=sorted(came), went=sorted(went))


def baked(people: Population, now: float) -> None:
    """The new generation has proved itself, or nobody waits for that."""
    reload, people.baking = people.baking, None
    assert reload is not None
    old = [slot.previous for slot in people.slots.values() if slot.previous]
    for slot in people.slots.values():
        slot.previous = None
    slots.retire(people, old, now)
    _succeeded(people, reload, now)


def roll_back(people: Population, why: str, now: float) -> None:
    """The old generation, kept undrained, is live again in one step."""
    reload, people.baking = people.baking, None
    assert reload is not None
    people.rejected.add(reload.generation)
    failed = []
    back = [slot for slot in people.wanted() if slot.previous]
    # Where the old one has died meanwhile the new one is better than none; but those who share a
    # queue leave as one.
    if back and people.options.balance == "shared":
        back = list(people.wanted())
    for slot in back:
        slots.drop_coming(people, slot, now)
        if slot.serving:
            failed.append(slot.serving)
        if slot.previous:
            slots.pass_on(people, slot.previous, Event.PROMOTE, now)
            people.generation = slot.previous.generation
        slot.serving, slot.previous = slot.previous, None
        slot.spawn_at = None if slot.serving else now
    for member in [one for one in people.members.values() if one.generation in people.rejected]:
        people.do(GiveUp(member.id))
    slots.retire(people, failed, now)
    for slot in people.wanted():
        if slot.serving:
            slots.settle_chain(people, slot)
    served = now - reload.cut_over_at
    why = f"{why}: rolled back after {served:.1f} s: the new code served meanwhile"
    tell_reload(people, reload, False, why, now, changed=True)


def abandon_reload(people: Population, why: str, now: float) -> None:
    """Nothing changes for clients: the new workers go, the old stay. (What has been
    switched so far stays switched, and is told, but for those who share a queue.)"""
    reload, people.reloading = people.reloading, None
    if reload is None:
        return
    back = _take_back(people, reload, now) if _leaves_as_one(people, reload) else []
    kept = []
    for slot in people.wanted():
        slot.surplus = False
        if slot.serving is None:
            keep_one(people, slot, now)
        else:
            slots.drop_coming(people, slot, now)
        goes_on = slot.incoming is not None
        kept += [slot.index] if goes_on else []
        reload.verdicts.setdefault(
            slot.index,
            "goes on: nobody serves here" if goes_on else "stopped: the reload failed",
        )
        if not goes_on and (slot.serving is None or slot.serving.leaves):
            slot.spawn_at = now + people.options.respawn
    if back:
        numbers = ", ".join(map(str, back))
        why += f"; slots {numbers} had generation {reload.generation} meanwhile"
    if reload.switched:
        numbers = ", ".join(map(str, sorted(reload.switched)))
        why += f"; slots {numbers} have generation {reload.generation} already"
    if kept:
        numbers = ", ".join(map(str, kept))
        why += f"; in slots {numbers}, where nobody serves, the boot under way goes on"
    tell_reload(people, reload, False, why, now, changed=bool(reload.switched or kept or back))


def _leaves_as_one(people: Population, reload: Reload) -> bool:
    """Of those who share a queue, if one that accepts has to leave: it would go on accepting
    from the others'. Not where there is nobody else."""
    serving = {slot.serving.generation for slot in people.wanted() if slot.serving}
    leaving = [
        member
        for slot in people.wanted()
        for member in slot.coming()
        if slot.serving or len(slot.coming()) > 1
    ]
    return bool(serving - {reload.generation}) and any(
        new.generation == reload.generation and slots.accepts(people, new) for new in leaving
    )


def _take_back(people: Population, reload: Reload, now: float) -> list[int]:
    """All of its workers leave, drained if they may have accepted. Returns the slots in which
    they served: those are dark again."""
    switched, leaving = sorted(reload.switched), []
    reload.switched.clear()
    for slot in people.wanted():
        if slot.serving and slot.serving.generation == reload.generation:
            leaving.append(slot.serving)
            slot.serving = None
            reload.verdicts[slot.index] = "served, and left with its like: the reload failed"
        for member in slot.coming():
            if member.generation == reload.generation:
                slot.forget(member)
                slots.drop(people, member, now)
    slots.retire(people, leaving, now)
    return switched


def tell_reload(
    people: Population,
    reload: Reload,
    ok: bool,
    why: str | None,
    now: float,
    changed: bool = False,
    came: list[str] | None = None,
    went: list[str] | None = None,
) -> None:
    """`changed`: of one that failed, whether clients met the new code."""
    people.last_reload = {"at": now, "ok": ok, "why": why, "generation": reload.generation}
    people.tell(
        events.Reload(
            ok=ok,
            changed=ok or changed,
            why=why,
            number=reload.number,
            generation=reload.generation,
            seconds=now - reload.began,
            verdicts=dict(reload.verdicts),
            came=came or [],
            went=went or [],
        )
    )


def boot_verdict(
    status: int, member: Member, now: float, when: str = ", before it was ready"
) -> str:
    how = f"exited with code {status}" if status >= 0 else f"was ended by signal {-status}"
    why = f" ({member.error})" if member.error else ""
    return f"{how} after {now - member.born:.1f} s{when}{why}"


def note_end(
    people: Population, slot: Slot, member: Member, status: int, before: State, now: float
) -> None:
    """What `status` tells of a slot in trouble."""
    if before in RETIRED and not member.overdue:
        return
    slot.restarts += 1
    starts = before is State.STARTING or member.overdue
    if status or starts:
        when = ", before it was ready" if starts else ""
        slot.last_error = (now, boot_verdict(status, member, now, when))


def hint_of(people: Population, status: int, member: Member) -> str | None:
    """What may help a worker that does not say why it cannot boot while its like serve."""
    serves = any(slot.serving for slot in people.slots.values())
    return HINT if status > 0 and not member.error and member.ready_at is None and serves else None


def overdue_verdict(people: Population, member: Member) -> str:
    within = f"within {people.options.ready_timeout:g} s"
    wanted = slots.expected(people, member) | member.closed
    missing = sorted(wanted - member.addresses)
    if missing and len(missing) == len(wanted):
        return f"never listened on {', '.join(missing)} {within}"
    if member.refusal:
        return f"was not ready {within}: {people.options.ready_url} was answered {member.refusal}"
    when = people.options.ready_when
    if when == "accepting" and member.addresses:
        return f"took no connection on {', '.join(sorted(member.addresses))} {within}"
    return f"was not {'ready' if when == 'ready' else 'listening'} {within}"
