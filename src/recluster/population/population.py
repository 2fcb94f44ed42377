"""Slots, generations, reload, respawn: what should run, and what to do about it. Pure.

Owns every decision about workers. Imports no os, time, signal or engine: events
go in as method calls with the time, commands come out of `take()`, so Hypothesis
can drive it (tests/models).

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
from .commands import Audit, CloseLanes, EndStrays, FindDeaf, Inspect, Leave, Move
from .draining import Facts, finished, may_get_more, may_move, move_again, settled
from .lifecycle import ENDED, RETIRED, Event
from .members import Member
from .readiness import Readiness
from .slots import HURRY_GRACE, LOOK_EVERY

GONE_GRACE = 5.0  # at the end: how long strays of a dead worker are waited for
RELIEF_TRIES = 3
DIES_AT_ONCE = 0.1  # seconds from the stop signal: nobody finishes anything in that time
WAITING_FIRST = 2.0  # seconds from the beginning of a shutdown to the line that says what
WAITING_EVERY = 10.0  # is waited for, and to the next such line
LEAVING = frozenset({State.SETTLING, State.DRAINING, State.STOPPING, State.ABORTED})
REJECTED_PATIENCE = 5.0  # how long a rolled-back worker may leave its queue standing
STEER_AGAIN = 0.1


class Population(Readiness):
    # ---- what the caller asks for ----------------------------------------------

    def start(self, now: float) -> None:
        self.generation = self._last_generation = 1
        self._resize(self.options.workers, now)

    def shutdown(self, now: float, code: int = 0, again: bool = False) -> None:
        """After `shutdown_delay`, drain all workers; then end with that exit code.
        `again`: workers that have had the stop signal get it once more."""
        if self.closing and again and not self.killing:
            for member in self.members.values():
                if member.state is State.STOPPING:
                    self.do(Leave(member.id))
        if self.closing or self._close_at is not None:
            return
        if self.reloading:
            self._abandon_reload("the cluster is shutting down", now)
        delay = 0.0 if self.killing or code else self.options.shutdown_delay
        if delay:
            self._close_at = now + delay
        else:
            self._close(now, code)

    def _close(self, now: float, code: int) -> None:
        if self.reloading:  # begun during `shutdown_delay`
            self._abandon_reload("the cluster is shutting down", now)
        leaving = []
        if self.baking and self.baking.canary:
            undecided, self.baking = self.baking, None
            leaving = [slot.previous for slot in self.slots.values() if slot.previous]
            for slot in self.slots.values():
                slot.previous = None
            self._tell_reload(undecided, False, "the cluster is shutting down", now)
        elif self.baking:
            self._baked(now)
        self._close_at = None
        self.closing = True
        self._code = code
        self.do(CloseLanes())
        for slot in self.slots.values():
            slot.wanted, slot.spawn_at = False, None
            self._drop_coming(slot, now)
            if slot.serving:
                leaving.append(slot.serving)
            slot.serving = None
        self._urge()
        self._retire(leaving, now)
        self._limit_shutdown(now)
        for slot in self.slots.values():
            self._settle_chain(slot)
        for member in self.members.values():
            if member.state is State.DEAD:
                member.deadline = now + GONE_GRACE
                if member.strays:
                    self._end_strays(member, now, kill=True)
        self._finish_if_empty()

    def _limit_shutdown(self, now: float) -> None:
        """Whoever is left has `shutdown_timeout`, however long it had before."""
        end = now + self.options.shutdown_timeout
        for member in self.members.values():
            if member.state in LEAVING:
                latest = max(end, member.settle_until)
                member.deadline = min(member.deadline or latest, latest)
        self._close_by = end
        self._urge_at = now + self.options.shutdown_timeout / 2
        self._waiting_at = now + WAITING_FIRST

    def _urge(self) -> None:
        """Some servers want the stop signal twice, and one may have come before the handler
        was there. But a second one makes others (aiohttp) drop what they are answering:
        whoever still owes an answer does not get it."""
        for member in self.members.values():
            if member.state is State.STOPPING and not self.killing:
                member.urged = True
                self.do(Inspect(member.id))

    def _tell_what_is_waited_for(self, now: float) -> None:
        waited_for = [one for one in self.members.values() if one.state not in ENDED]
        for member in waited_for:
            self.do(Inspect(member.id))
        if waited_for:
            self._tell(events.Waiting(max(0.0, self._close_by - now)))

    def terminate(self, now: float) -> None:
        """Kill everything at once."""
        self.killing = True
        if self.reloading:
            self._abandon_reload("the cluster was terminated", now)
        if not self.closing:
            self._close(now, 0)
        for member in list(self.members.values()):
            self._event(member, Event.KILL, now)
        self._finish_if_empty()

    # ---- what happened ---------------------------------------------------------

    def online(self, worker: int, now: float) -> None:
        """The process runs, and its door is open."""
        self._tell(events.Online(), worker)
        if self.options.ready_when == "started":
            self.ready(worker, now)

    def listening(
        self,
        worker: int,
        address: str,
        now: float,
        proving: bool = False,
        more: Iterable[str] = (),
    ) -> None:
        """`proving`: whether it accepts there is being found out. `more`: where it does too."""
        member = self.members[worker]
        member.proving = member.proving or proving
        if member.state is State.DEAD:
            self._listens_late(member, now)
        for one in (address, *more):
            self._attends(member, one, now)
            self._tell(events.Listening(one), worker)
        if self.options.ready_when == "listening":
            self.ready(worker, now)
        self._advance(now)

    def said_disconnect(self, worker: int, now: float) -> None:
        """The worker wants to be replaced, and will finish."""
        member = self.members[worker]
        self._tell(events.Disconnect(), worker)
        if self.slots[member.slot].serving is not member or member.leaving:
            return
        member.leaving = True
        self.do(FindDeaf(worker))
        self._replace_leaving(now)
        self.tick(now)

    def hung(self, worker: int, queued: int, now: float) -> None:
        """It takes none of the connections that wait in its lane, though it got
        no new ones for a second. (Steering avoids it as long as others do.)"""
        member = self.members[worker]
        if member.state is not State.SERVING:
            return
        member.hung_since = now
        if self.options.hang_timeout:
            member.deadline = now + self.options.hang_timeout
        self._tell(events.Hung(queued), worker)

    def takes(self, worker: int, now: float) -> None:
        """It takes connections again."""
        member = self.members[worker]
        if member.state is not State.SERVING or member.hung_since is None:
            return
        self._tell(events.Takes(now - member.hung_since), worker)
        member.hung_since = member.deadline = None

    def spoke(self, worker: int) -> None:
        """It has said something on its channel, so it hears what it is told there."""
        self.members[worker].spoken = True

    def left(self, worker: int, at: float | None) -> None:
        """It was sent the stop signal then, and not when that was asked for; 0: when all was
        answered, so how soon it has ended says nothing."""
        if at is not None:
            self.members[worker].left_at = at or None

    def leaves_waiting(self, worker: int) -> None:
        """It has ended, and clients wait in its lanes whom nobody else can take."""
        self.members[worker].left_waiting = True

    def exited(self, worker: int, status: int, now: float, left: bool = False) -> None:
        """Its leader was reaped: exit code, or minus the signal. `left`: processes that
        nobody supervises are left of it."""
        member = self.members[worker]
        background = self._has_gone(member, status, left, now)
        slot = self.slots[member.slot]
        before = member.state
        self._learn(member, status, now)
        self._event(member, Event.EXIT, now)
        member.look_at = None
        member.deadline = now + GONE_GRACE if self.closing else None
        exit = events.Exit(
            code=status if status >= 0 else None,
            signal=signal_name(-status) if status < 0 else None,
            was=before,
            lived=now - member.born,
            error=member.error,
            hint=self._hint(status, member) if before is State.STARTING else None,
            overdue=member.overdue,
            asked=before in RETIRED and not member.overdue,
        )
        why, served = None, slot.serving is member
        if slot.incoming is member:
            slot.incoming = None
            reload = self.reloading
            if reload and slot.index in reload.batch:
                why = self._boot_verdict(status, member, now)
                if hint := self._hint(status, member):
                    why += f"; {hint}"
                reload.verdicts[slot.index] = why
            else:
                if member.addresses:  # else it has no lane that wants an heir
                    slot.chain.append(member)
                self._boot_failed(slot, member, now)
        elif slot.healing is member:
            slot.healing = None
            if member.addresses:
                slot.chain.append(member)
            self._boot_failed(slot, member, now)
        elif served and background:
            self._lost(slot, member, now)
        elif served:
            slot.serving, slot.served = None, member.addresses or member.closed
            slot.chain.append(member)
            self._bequeath(slot, member)
            member.leaving = member.leaving or status == 0
            self._plan_spawn(slot, member, now)
        elif slot.previous is member:
            slot.previous = None
        rolled_back = None
        if (
            self.baking
            and member.generation == self.baking.generation
            and before
            in (
                State.SERVING,
                State.ABORTED,
            )
        ):
            rolled_back = self._boot_verdict(status, member, now, "")
        if slot.spawn_at is not None and why is None:
            exit = replace(exit, next_try=max(0.0, slot.spawn_at - now))
        self._tell(exit, worker)
        if background:
            self._end_strays(member, now)
        self._note_end(slot, member, status, State.STARTING if background else before, now)
        if why is not None:
            self._abandon_reload(f"worker {slot.index} {why}", now)
        if rolled_back is not None:
            self._roll_back(f"worker {slot.index} {rolled_back}", now)
        if served and not background:
            self._died_serving(slot, member, self._boot_verdict(status, member, now, ""), now)
        self._give_up_if_hopeless(now)
        self._advance(now)

    def _learn(self, member: Member, status: int, now: float) -> None:
        """What this program does at the stop signal, by how one of its workers has ended."""
        if member.state is not State.STOPPING or member.left_at is None:
            return
        if now - member.left_at <= DIES_AT_ONCE and member.connections:
            self._dies_of_stop = True
        elif status != -self.options.stop_signal and self._dies_of_stop is None:
            self._dies_of_stop = False

    def cancelled(self, worker: int) -> bool:
        """Whether a Spawn has become pointless before it was carried out (an
        earlier one of the same turn failed, say). Then the worker never was."""
        if self.members[worker].state is State.STARTING:
            return False
        del self.members[worker]
        self._finish_if_empty()
        return True

    def spawn_failed(self, worker: int, error: str, now: float) -> None:
        """There is no process: the kernel refused one."""
        member = self.members.pop(worker)
        slot = self.slots[member.slot]
        if slot.incoming is member:
            slot.incoming = None
        elif slot.healing is member:
            slot.healing = None
        self._tell(events.SpawnFailed(slot.index, error), worker)
        slot.last_error = (now, f"could not be spawned: {error}")
        reload = self.reloading
        if reload and slot.index in reload.batch and member.generation == reload.generation:
            self._abandon_reload(f"worker {slot.index} could not be spawned: {error}", now)
        elif member.relief:
            heir = self.members.get(member.heir_of)
            if heir:
                heir.look_at = now + max(self.options.respawn, LOOK_EVERY)
        elif slot.wanted:
            self._boot_failed(slot, member, now)
            self._give_up_if_hopeless(now)
        self._finish_if_empty()

    def unborn(self, worker: int, why: str, now: float) -> None:
        """It was to be forked by a mold, and will not be."""
        member = self.members.get(worker)
        if member is None:
            return
        comes = member in self.slots[member.slot].coming() or member.relief
        if comes or not self.cancelled(worker):
            self.spawn_failed(worker, why, now)

    def generations(self) -> set[int]:
        """Those of which a worker may still be wanted."""
        known = {self.generation}
        known |= {one.generation for one in (self.reloading, self.baking) if one}
        previous = (slot.previous for slot in self.slots.values())
        return known | {member.generation for member in previous if member}

    def gone(self, worker: int, now: float) -> None:
        """Nothing of the worker runs any more."""
        member = self.members[worker]
        self._event(member, Event.GONE, now)
        member.deadline = None
        if member.strays:  # the preload door does not tell when the last of them ends
            self.do(EndStrays(worker, kill=True))
        if member not in self.slots[member.slot].chain:
            self.do(Inspect(worker))

    def inspected(self, worker: int, facts: Facts, now: float) -> None:
        """The answer to Inspect."""
        member = self.members.get(worker)
        if member is None:
            return
        member.connections = facts.connections
        if member.state is State.STOPPING and member.urged:
            member.urged = False
            if facts.owing <= 0:
                self.do(Leave(member.id))
        if member.state is State.SETTLING and facts.queued and self._given_up(member, now):
            member.deadline = min(member.deadline or now, now + HURRY_GRACE)
            self._event(member, Event.HURRY, now)
        elif member.state is State.SETTLING:
            tried = member.relief >= RELIEF_TRIES
            if facts.stranded and not facts.handed and not tried and not self._relief_comes(member):
                self._relieve(member, facts.stranded, now)
            if facts.queued:  # what it takes now, it has to answer; but not beyond its time
                until = min(now + self.options.drain_settle, member.deadline or math.inf)
                member.settle_until = max(member.settle_until, until)
            if settled(member, facts, now):
                self._event(member, Event.SETTLED, now)
            else:
                soon = now + LOOK_EVERY
                more = may_get_more(facts)
                member.look_at = soon if more else max(soon, member.settle_until)
        elif member.state is State.DRAINING:
            member.told = facts.told
            if member.told or finished(member, facts, self.options, self._dies_of_stop, now):
                self._event(member, Event.FINISHED, now)
                return
            quiet = may_move(member, facts, self.options, self._dies_of_stop, now)
            if quiet is not None:
                member.move_at = move_again(member, now)
                member.moves += 1
                self.do(Move(worker, quiet))
            member.look_at = now + LOOK_EVERY
        elif member.state is State.GONE:
            if facts.handed and not self.killing:
                member.look_at = now + LOOK_EVERY
            elif facts.queued and not self.killing and self._relief_comes(member):
                pass  # begun while it lived, deaf; inspected again at its end
            elif facts.queued and not self.killing and member.relief < RELIEF_TRIES:
                self._relieve(member, facts.queued, now)
            else:
                if facts.queued:
                    self._tell(events.Dropped(facts.queued), member.id)
                self._release(member)
                heir = self.members.get(member.heir_of)
                if heir and heir.state is State.GONE and heir not in self.slots[heir.slot].chain:
                    self.do(Inspect(heir.id))

    def _given_up(self, member: Member, now: float) -> bool:
        """Its generation was rolled back, and it does not take what waits for it."""
        patience = self.options.drain_settle + REJECTED_PATIENCE
        return member.generation in self._rejected and now >= member.retired_at + patience

    def _relief_comes(self, member: Member) -> bool:
        return any(
            other.relief and other.heir_of == member.id and other.state not in ENDED
            for other in self.members.values()
        )

    def steering_failed(self, now: float) -> None:
        """The kernel had no memory for the program: try again soon. Retired
        workers go on accepting meanwhile."""
        self._steer_at = now + STEER_AGAIN

    # ---- time ------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [slot.spawn_at for slot in self.slots.values()]
        if self.reloading:
            healing = (self.slots[index].healing for index in self.reloading.unborn)
            times += [self._believed_until(member) for member in healing if member]
        times += [self._steer_at, self._close_at, self._urge_at, self._waiting_at]
        times.append(self.baking.bake_until if self.baking else None)
        times += [self._hold_at(), self._claim_by, self._wear_at()]
        for member in self.members.values():
            times += [member.deadline, member.look_at, member.ask_at]
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        if self._steer_at is not None and self._steer_at <= now:
            self._steer_at = None
            self._refused = True
        if self._close_at is not None and self._close_at <= now:
            self._close(now, 0)
        if self._urge_at is not None and self._urge_at <= now:
            self._urge_at = None
            self._urge()
            for member in self.members.values():  # it was left to itself long enough
                if member.state is State.DRAINING and (member.spoken or not member.listened):
                    self._event(member, Event.FINISHED, now)
        if self._waiting_at is not None and self._waiting_at <= now:
            self._waiting_at = now + WAITING_EVERY
            self._tell_what_is_waited_for(now)
        if self.baking and self.baking.bake_until is not None and self.baking.bake_until <= now:
            self._baked(now)
        for member in list(self.members.values()):
            self.about = member.id
            self._ask_again(member, now)
            if member.look_at is not None and member.look_at <= now:
                member.look_at = None
                self.do(Inspect(member.id))
            if member.deadline is not None and member.deadline <= now:
                member.deadline = None
                self._overdue(member, now)
        self.about = 0
        self._spawn_due(now)
        self._advance(now)

    # ---- inside ----------------------------------------------------------------

    def _overdue(self, member: Member, now: float) -> None:
        slot = self.slots[member.slot]
        if self._fits(member, now):
            return  # it was in time, and waits for its siblings without limit
        if member.state in (State.STARTING, State.READY):
            member.overdue = True
            why = self._overdue_verdict(member)
            self.do(Audit(member.id))
            self._tell(events.Overdue(why), member.id)
            self._cancel(member, now, Event.OVERDUE)
            if self.reloading and slot.incoming is member:
                self.reloading.verdicts[slot.index] = why
                self._abandon_reload(f"worker {slot.index} {why}", now)
        elif member.state is State.SERVING:
            why = f"hung for {self.options.hang_timeout:g} s; ended"
            self._tell(events.Overdue(why), member.id)
            self._event(member, Event.HANG, now)
        elif member.state is State.DEAD and not self.closing:
            self._end_strays(member, now, kill=True)
        elif member.state is State.DEAD:
            # Strays that left the process group hold its lanes; the end does
            # not wait for them.
            self.gone(member.id, now)
        else:
            self._tell(events.Overdue(f"still {member.state.value}; killed"), member.id)
            self._event(member, Event.OVERDUE, now)

    def _give_up_if_hopeless(self, now: float) -> None:
        most = self.options.give_up
        if self._nothing and not self.ever_ready and not self.closing:
            self._tell(events.NothingToRun(self._nothing))
            self.shutdown(now, code=2)
        if most and not self.ever_ready and self._failures >= most and not self.closing:
            self._tell(events.GaveUp(self._failures))
            self.shutdown(now, code=1)
