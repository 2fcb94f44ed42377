"""Slots, generations, reload, respawn: what should run, and what to do about it. Pure.

Where most events arrive: a call with the population (`state`), what has happened and the time;
what is to be done then stands in its commands. Imports no os, time, signal or engine, so
Hypothesis can drive it (tests/models).

Invariants, beside the table in `lifecycle`:
- a slot has at most one serving and one incoming worker;
- a reload changes what is live in one `Live` command or not at all;
- a worker that ended is released only after its last process is gone, and its
  queued connections have an heir while there is anyone to be it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from .. import events
from ..base.states import State
from ..base.wording import signal_name
from . import cutover, slots
from .addresses import attends
from .advancing import advance
from .background import end_strays, has_gone, listens_late, lost
from .closing import GONE_GRACE, WAITING_EVERY, close, shutdown, tell_what_is_waited_for, urge
from .commands import Audit, EndStrays, FindDeaf, Inspect, Leave, Move
from .draining import Facts, finished, may_get_more, may_move, move_again, settled
from .failing import died_serving
from .healing import believed_until, bequeath, replace_leaving, spawn_due
from .holding import hold_at
from .lifecycle import ENDED, RETIRED, Event
from .members import Member
from .readiness import ask_again, ready
from .recycling import wear_at
from .sizing import resize
from .state import Population

RELIEF_TRIES = 3
DIES_AT_ONCE = 0.1  # seconds from the stop signal: nobody finishes anything in that time
REJECTED_PATIENCE = 5.0  # how long a rolled-back worker may leave its queue standing
STEER_AGAIN = 0.1


def start(people: Population, now: float) -> None:
    people.generation = people.last_generation = 1
    resize(people, people.options.workers, now)


# ---- what happened ---------------------------------------------------------
def online(people: Population, worker: int, now: float) -> None:
    """The process runs, and its door is open."""
    people.tell(events.Online(), worker)
    if people.options.ready_when == "started":
        ready(people, worker, now)


def listening(
    people: Population,
    worker: int,
    address: str,
    now: float,
    proving: bool = False,
    more: Iterable[str] = (),
) -> None:
    """`proving`: whether it accepts there is being found out. `more`: where it does too."""
    member = people.members[worker]
    member.proving = member.proving or proving
    if member.state is State.DEAD:
        listens_late(people, member, now)
    for one in (address, *more):
        attends(people, member, one, now)
        people.tell(events.Listening(one), worker)
    if people.options.ready_when == "listening":
        ready(people, worker, now)
    advance(people, now)


def said_disconnect(people: Population, worker: int, now: float) -> None:
    """The worker wants to be replaced, and will finish."""
    member = people.members[worker]
    people.tell(events.Disconnect(), worker)
    if people.slots[member.slot].serving is not member or member.leaving:
        return
    member.leaving = True
    people.do(FindDeaf(worker))
    replace_leaving(people, now)
    tick(people, now)


def hung(people: Population, worker: int, queued: int, now: float) -> None:
    """For a second it has taken none of the connections that wait in its lane.
    (Steering avoids it as long as others do.)"""
    member = people.members[worker]
    if member.state is not State.SERVING:
        return
    member.hung_since = now
    if people.options.hang_timeout:
        member.deadline = now + people.options.hang_timeout
    people.tell(events.Hung(queued), worker)


def takes(people: Population, worker: int, now: float) -> None:
    """It takes connections again."""
    member = people.members[worker]
    if member.state is not State.SERVING or member.hung_since is None:
        return
    people.tell(events.Takes(now - member.hung_since), worker)
    member.hung_since = member.deadline = None


def spoke(people: Population, worker: int) -> None:
    """It has said something on its channel, so it hears what it is told there."""
    people.members[worker].spoken = True


def left(people: Population, worker: int, at: float | None) -> None:
    """It was sent the stop signal then, and not when that was asked for; 0: when all was
    answered, so how soon it has ended says nothing."""
    if at is not None:
        people.members[worker].left_at = at or None


def leaves_waiting(people: Population, worker: int) -> None:
    """It has ended, and clients wait in its lanes whom nobody else can take."""
    people.members[worker].left_waiting = True


def exited(people: Population, worker: int, status: int, now: float, left: bool = False) -> None:
    """Its leader was reaped: exit code, or minus the signal. `left`: processes that
    nobody supervises are left of it."""
    member = people.members[worker]
    background = has_gone(people, member, status, left, now)
    slot = people.slots[member.slot]
    before = member.state
    _learn(people, member, status, now)
    slots.pass_on(people, member, Event.EXIT, now)
    member.look_at = None
    member.deadline = now + GONE_GRACE if people.closing else None
    exit = events.Exit(
        code=status if status >= 0 else None,
        signal=signal_name(-status) if status < 0 else None,
        was=before,
        lived=now - member.born,
        error=member.error,
        hint=cutover.hint_of(people, status, member) if before is State.STARTING else None,
        overdue=member.overdue,
        asked=before in RETIRED and not member.overdue,
    )
    why, served = None, slot.serving is member
    if slot.incoming is member:
        slot.incoming = None
        reload = people.reloading
        if reload and slot.index in reload.batch:
            why = cutover.boot_verdict(status, member, now)
            if hint := cutover.hint_of(people, status, member):
                why += f"; {hint}"
            reload.verdicts[slot.index] = why
        else:
            if member.addresses:  # else it has no lane that wants an heir
                slot.chain.append(member)
            slots.boot_failed(people, slot, member, now)
    elif slot.healing is member:
        slot.healing = None
        if member.addresses:
            slot.chain.append(member)
        slots.boot_failed(people, slot, member, now)
    elif served and background:
        lost(people, slot, member, now)
    elif served:
        slot.serving, slot.served = None, member.addresses or member.closed
        slot.chain.append(member)
        bequeath(people, slot, member)
        member.leaving = member.leaving or status == 0
        slots.plan_spawn(people, slot, member, now)
    elif slot.previous is member:
        slot.previous = None
    rolled_back = None
    if (
        people.baking
        and member.generation == people.baking.generation
        and before
        in (
            State.SERVING,
            State.ABORTED,
        )
    ):
        rolled_back = cutover.boot_verdict(status, member, now, "")
    if slot.spawn_at is not None and why is None:
        exit = replace(exit, next_try=max(0.0, slot.spawn_at - now))
    people.tell(exit, worker)
    if background:
        end_strays(people, member, now)
    cutover.note_end(people, slot, member, status, State.STARTING if background else before, now)
    if why is not None:
        cutover.abandon_reload(people, f"worker {slot.index} {why}", now)
    if rolled_back is not None:
        cutover.roll_back(people, f"worker {slot.index} {rolled_back}", now)
    if served and not background:
        died_serving(people, slot, member, cutover.boot_verdict(status, member, now, ""), now)
    _give_up_if_hopeless(people, now)
    advance(people, now)


def _learn(people: Population, member: Member, status: int, now: float) -> None:
    """What this program does at the stop signal, by how one of its workers has ended."""
    if member.state is not State.STOPPING or member.left_at is None:
        return
    if now - member.left_at <= DIES_AT_ONCE and member.connections:
        people.dies_of_stop = True
    elif status != -people.options.stop_signal and people.dies_of_stop is None:
        people.dies_of_stop = False


def cancelled(people: Population, worker: int) -> bool:
    """Whether a Spawn has become pointless before it was carried out (an
    earlier one of the same turn failed, say). Then the worker never was."""
    if people.members[worker].state is State.STARTING:
        return False
    del people.members[worker]
    slots.finish_if_empty(people)
    return True


def spawn_failed(people: Population, worker: int, error: str, now: float) -> None:
    """There is no process: the kernel refused one."""
    member = people.members.pop(worker)
    slot = people.slots[member.slot]
    slot.forget(member)
    people.tell(events.SpawnFailed(slot.index, error), worker)
    slot.last_error = (now, f"could not be spawned: {error}")
    reload = people.reloading
    if reload and slot.index in reload.batch and member.generation == reload.generation:
        cutover.abandon_reload(people, f"worker {slot.index} could not be spawned: {error}", now)
    elif member.relief:
        heir = people.members.get(member.heir_of)
        if heir:
            heir.look_at = now + max(people.options.respawn, slots.LOOK_EVERY)
    elif slot.wanted:
        slots.boot_failed(people, slot, member, now)
        _give_up_if_hopeless(people, now)
    slots.finish_if_empty(people)


def unborn(people: Population, worker: int, why: str, now: float) -> None:
    """It was to be forked by a mold, and will not be."""
    member = people.members.get(worker)
    if member is None:
        return
    comes = member in people.slots[member.slot].coming() or member.relief
    if comes or not cancelled(people, worker):
        spawn_failed(people, worker, why, now)


def generations(people: Population) -> set[int]:
    """Those of which a worker may still be wanted."""
    known = {people.generation}
    known |= {one.generation for one in (people.reloading, people.baking) if one}
    previous = (slot.previous for slot in people.slots.values())
    return known | {member.generation for member in previous if member}


def gone(people: Population, worker: int, now: float) -> None:
    """Nothing of the worker runs any more."""
    member = people.members[worker]
    slots.pass_on(people, member, Event.GONE, now)
    member.deadline = None
    if member.strays:  # the preload door does not tell when the last of them ends
        people.do(EndStrays(worker, kill=True))
    if member not in people.slots[member.slot].chain:
        people.do(Inspect(worker))


def inspected(people: Population, worker: int, facts: Facts, now: float) -> None:
    """The answer to Inspect."""
    member = people.members.get(worker)
    if member is None:
        return
    member.connections = facts.connections
    if member.state is State.STOPPING and member.urged:
        member.urged = False
        if facts.owing <= 0:
            people.do(Leave(member.id))
    if member.state is State.SETTLING and facts.queued and _given_up(people, member, now):
        member.deadline = min(member.deadline or now, now + slots.HURRY_GRACE)
        slots.pass_on(people, member, Event.HURRY, now)
    elif member.state is State.SETTLING:
        tried = member.relief >= RELIEF_TRIES
        if facts.stranded and not facts.handed and not tried and not _relief_comes(people, member):
            slots.relieve(people, member, facts.stranded, now)
        if facts.queued:  # what it takes now, it has to answer; but not beyond its time
            until = min(now + people.options.drain_settle, member.deadline or math.inf)
            member.settle_until = max(member.settle_until, until)
        if settled(member, facts, now):
            slots.pass_on(people, member, Event.SETTLED, now)
        else:
            soon, more = now + slots.LOOK_EVERY, may_get_more(facts)
            member.look_at = soon if more else max(soon, member.settle_until)
    elif member.state is State.DRAINING:
        member.told = facts.told
        if member.told or finished(member, facts, people.options, people.dies_of_stop, now):
            slots.pass_on(people, member, Event.FINISHED, now)
            return
        quiet = may_move(member, facts, people.options, people.dies_of_stop, now)
        if quiet is not None:
            member.move_at = move_again(member, now)
            member.moves += 1
            people.do(Move(worker, quiet))
        member.look_at = now + slots.LOOK_EVERY
    elif member.state is State.GONE:
        if facts.handed and not people.killing:
            member.look_at = now + slots.LOOK_EVERY
        elif facts.queued and not people.killing and _relief_comes(people, member):
            pass  # begun while it lived, deaf; inspected again at its end
        elif facts.queued and not people.killing and member.relief < RELIEF_TRIES:
            slots.relieve(people, member, facts.queued, now)
        else:
            if facts.queued:
                people.tell(events.Dropped(facts.queued), member.id)
            slots.release(people, member)
            heir = people.members.get(member.heir_of)
            if heir and heir.state is State.GONE and heir not in people.slots[heir.slot].chain:
                people.do(Inspect(heir.id))


def _given_up(people: Population, member: Member, now: float) -> bool:
    """Its generation was rolled back, and it does not take what waits for it."""
    patience = people.options.drain_settle + REJECTED_PATIENCE
    return member.generation in people.rejected and now >= member.retired_at + patience


def _relief_comes(people: Population, member: Member) -> bool:
    return any(
        other.relief and other.heir_of == member.id and other.state not in ENDED
        for other in people.members.values()
    )


def steering_failed(people: Population, now: float) -> None:
    """The kernel had no memory for the program: try again soon. Retired
    workers go on accepting meanwhile."""
    people.steer_at = now + STEER_AGAIN


# ---- time ------------------------------------------------------------------
def deadline(people: Population) -> float | None:
    """When `tick` has something to do."""
    times = [slot.spawn_at for slot in people.slots.values()]
    if people.reloading:
        healing = (people.slots[index].healing for index in people.reloading.unborn)
        times += [believed_until(people, member) for member in healing if member]
    times += [people.steer_at, people.close_at, people.urge_at, people.waiting_at]
    times.append(people.baking.bake_until if people.baking else None)
    times += [hold_at(people), people.claim_by, wear_at(people)]
    for member in people.members.values():
        times += member.deadline, member.look_at, member.ask_at
    return min([at for at in times if at is not None], default=None)


def tick(people: Population, now: float) -> None:
    if people.steer_at is not None and people.steer_at <= now:
        people.steer_at = None
        people.refused = True
    if people.close_at is not None and people.close_at <= now:
        close(people, now, 0)
    if people.urge_at is not None and people.urge_at <= now:
        people.urge_at = None
        urge(people)
        for member in people.members.values():  # it was left to itself long enough
            if member.state is State.DRAINING and (member.spoken or not member.listened):
                slots.pass_on(people, member, Event.FINISHED, now)
    if people.waiting_at is not None and people.waiting_at <= now:
        people.waiting_at = now + WAITING_EVERY
        tell_what_is_waited_for(people, now)
    if people.baking and people.baking.bake_until is not None and people.baking.bake_until <= now:
        cutover.baked(people, now)
    for member in list(people.members.values()):
        people.about = member.id
        ask_again(people, member, now)
        if member.look_at is not None and member.look_at <= now:
            member.look_at = None
            people.do(Inspect(member.id))
        if member.deadline is not None and member.deadline <= now:
            member.deadline = None
            _overdue(people, member, now)
    people.about = 0
    spawn_due(people, now)
    advance(people, now)


# ---- inside ----------------------------------------------------------------
def _overdue(people: Population, member: Member, now: float) -> None:
    slot = people.slots[member.slot]
    if slots.fits(people, member, now):
        return  # it was in time, and waits for its siblings without limit
    if member.state in (State.STARTING, State.READY):
        member.overdue = True
        why = cutover.overdue_verdict(people, member)
        people.do(Audit(member.id))
        people.tell(events.Overdue(why), member.id)
        comes = people.reloading if slot.incoming is member else None
        if not slots.accepts(people, member):
            slots.cancel(people, member, now, Event.OVERDUE)
        if comes:
            comes.verdicts[slot.index] = why
            cutover.abandon_reload(people, f"worker {slot.index} {why}", now)
        if member in slot.coming() and slots.accepts(people, member):
            slot.forget(member)
            slots.drop(people, member, now)
            slots.boot_failed(people, slot, member, now)
    elif member.state is State.SERVING:
        why = f"hung for {people.options.hang_timeout:g} s; ended"
        people.tell(events.Overdue(why), member.id)
        slots.pass_on(people, member, Event.HANG, now)
    elif member.state is State.DEAD and not people.closing:
        end_strays(people, member, now, kill=True)
    elif member.state is State.DEAD:
        # Strays that left the process group hold its lanes; the end does
        # not wait for them.
        gone(people, member.id, now)
    else:
        people.tell(events.Overdue(f"still {member.state.value}; killed"), member.id)
        slots.pass_on(people, member, Event.OVERDUE, now)


def _give_up_if_hopeless(people: Population, now: float) -> None:
    most = people.options.give_up
    if people.nothing and not people.ever_ready and not people.closing:
        people.tell(events.NothingToRun(people.nothing))
        shutdown(people, now, code=2)
    if most and not people.ever_ready and people.failures >= most and not people.closing:
        people.tell(events.GaveUp(people.failures))
        shutdown(people, now, code=1)
