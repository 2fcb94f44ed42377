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

from .attendance import Attendance
from .backoff import Backoff
from .commands import CloseLanes, FindDeaf, Inspect, Live
from .draining import Facts, finished, settled
from .lifecycle import ENDED, RETIRED, Event, State
from .members import Member, Slot
from .slots import LANE_GRACE, LOOK_EVERY

GONE_GRACE = 5.0  # at the end: how long strays of a dead worker are waited for
RELIEF_TRIES = 3
STEER_AGAIN = 0.1


class Population(Attendance):
    # ---- what the caller asks for ----------------------------------------------

    def start(self, now: float) -> None:
        self.generation = self._last_generation = 1
        self._resize(self.options.workers, now)

    def scale(self, count: int, now: float) -> str | None:
        """Have that many slots; those above drain. Returns why not."""
        if self.closing:
            return None
        why = self.cannot_weigh(self.weights, count)
        if why:
            return why
        if self.options.balance == "shared" and self.baking and self.baking.canary:
            return "not while a canary is on probation: promote it or roll it back first"
        self._resize(count, now)
        self._advance(now)
        return None

    def weigh(self, weights: dict[int, float]) -> str | None:
        """Give these slots these weights. Returns why not."""
        together = {**self.weights, **weights}
        wanted = sum(not slot.surplus for slot in self._wanted())
        why = self.cannot_weigh(together, wanted)
        if why is None and not self.closing:
            self.weights = together
            self._steer()
        return why

    @staticmethod
    def cannot_weigh(weights: dict[int, float], count: int) -> str | None:
        if any(weights.get(index, 1.0) for index in range(count)):
            return None
        return f"the weights of all {count} slots would be 0: nobody would get a connection"

    def shutdown(self, now: float, code: int = 0) -> None:
        """After `shutdown_delay`, drain all workers; then end with that exit code."""
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
        self._do(CloseLanes())
        for slot in self.slots.values():
            slot.wanted, slot.spawn_at = False, None
            self._drop_incoming(slot, now)
            if slot.serving:
                leaving.append(slot.serving)
            slot.serving = None
        self._steer()
        self._retire(leaving, now)
        for slot in self.slots.values():
            self._settle_chain(slot)
        for member in self.members.values():
            if member.state is State.DEAD:
                member.deadline = now + GONE_GRACE
        self._finish_if_empty()

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
        self._tell("online", worker)
        if self.options.ready_when == "started":
            self.ready(worker, now)

    def listening(self, worker: int, address: str, now: float) -> None:
        member = self.members[worker]
        self._attends(member, address, now)
        self._tell("listening", worker, address=address)
        if self.options.ready_when == "listening":
            self.ready(worker, now)
        self._advance(now)

    def said_ready(self, worker: int, now: float) -> None:
        if self.options.ready_when == "ready":
            self.ready(worker, now)

    def ready(self, worker: int, now: float) -> None:
        member = self.members[worker]
        if member.state is not State.STARTING:
            return
        self._event(member, Event.READY, now)
        member.ready_at = now
        self.ever_ready = True
        self._failures = 0
        self._tell("ready", worker, seconds=now - member.born)
        if not self._fits(member, now):
            member.look_at = now + LANE_GRACE
        if member.relief:
            self._release_heirs_of(member)
            self._retire([member], now)
        self._advance(now)

    def said_disconnect(self, worker: int, now: float) -> None:
        """The worker wants to be replaced, and will finish."""
        member = self.members[worker]
        self._tell("disconnect", worker)
        if self.slots[member.slot].serving is not member or member.leaving:
            return
        member.leaving = True
        self._do(FindDeaf(worker))
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
        self._tell("hung", worker, queued=queued)

    def takes(self, worker: int, now: float) -> None:
        """It takes connections again."""
        member = self.members[worker]
        if member.state is not State.SERVING or member.hung_since is None:
            return
        self._tell("takes", worker, seconds=now - member.hung_since)
        member.hung_since = member.deadline = None

    def failed(self, worker: int, error: str) -> None:
        """The worker told why it is about to end."""
        self.members[worker].error = error

    def exited(self, worker: int, status: int, now: float) -> None:
        """Its leader was reaped: exit code, or minus the signal."""
        member = self.members[worker]
        slot = self.slots[member.slot]
        before = member.state
        self._event(member, Event.EXIT, now)
        member.look_at = None
        member.deadline = now + GONE_GRACE if self.closing else None
        details = {
            "code": status if status >= 0 else None,
            "signal": -status if status < 0 else None,
            "was": before,
            "lived": now - member.born,
            "error": member.error,
            "overdue": member.overdue,
            "asked": before in RETIRED and not member.overdue,
        }
        why = None
        if slot.incoming is member:
            slot.incoming = None
            reload = self.reloading
            if reload and slot.index in reload.batch:
                why = self._boot_verdict(status, member, now)
                reload.verdicts[slot.index] = why
            else:
                if member.addresses:  # else it has no lane that wants an heir
                    slot.chain.append(member)
                self._boot_failed(slot, member, now)
        elif slot.serving is member:
            slot.serving = None
            slot.chain.append(member)
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
        details["next_try"] = (
            max(0.0, slot.spawn_at - now) if slot.spawn_at is not None and why is None else None
        )
        self._tell("exit", worker, **details)
        if why is not None:
            self._abandon_reload(f"worker {slot.index} {why}", now)
        if rolled_back is not None:
            self._roll_back(f"worker {slot.index} {rolled_back}", now)
        self._give_up_if_hopeless(now)
        self._steer()
        self._advance(now)

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
        self._tell("spawn_failed", worker, slot=slot.index, error=error)
        if self.reloading and slot.index in self.reloading.batch:
            self._abandon_reload(f"worker {slot.index} could not be spawned: {error}", now)
        elif member.relief:
            heir = self.members.get(member.heir_of)
            if heir:
                heir.look_at = now + max(self.options.respawn, LOOK_EVERY)
        elif slot.wanted:
            self._boot_failed(slot, member, now)
            self._give_up_if_hopeless(now)
        self._steer()
        self._finish_if_empty()

    def gone(self, worker: int, now: float) -> None:
        """Nothing of the worker runs any more."""
        member = self.members[worker]
        self._event(member, Event.GONE, now)
        member.deadline = None
        if member not in self.slots[member.slot].chain:
            self._do(Inspect(worker))

    def inspected(self, worker: int, facts: Facts, now: float) -> None:
        """The answer to Inspect."""
        member = self.members.get(worker)
        if member is None:
            return
        if member.state is State.SETTLING:
            tried = member.relief >= RELIEF_TRIES
            if facts.stranded and not tried and not self._relief_comes(member):
                self._relieve(member, facts.stranded, now)
            if facts.queued:  # what it takes now, it has to answer
                member.settle_until = max(member.settle_until, now + self.options.drain_settle)
            if settled(member, facts, now):
                self._event(member, Event.SETTLED, now)
            else:
                member.look_at = now + LOOK_EVERY
        elif member.state is State.DRAINING:
            if finished(member, facts, self.options, now):
                self._event(member, Event.FINISHED, now)
            else:
                member.look_at = now + LOOK_EVERY
        elif member.state is State.GONE:
            if facts.queued and not self.killing and self._relief_comes(member):
                pass  # begun while it lived, deaf; inspected again at its end
            elif facts.queued and not self.killing and member.relief < RELIEF_TRIES:
                self._relieve(member, facts.queued, now)
            else:
                self._release(member)
                heir = self.members.get(member.heir_of)
                if heir and heir.state is State.GONE and heir not in self.slots[heir.slot].chain:
                    self._do(Inspect(heir.id))

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
        times += [self._steer_at, self._close_at]
        times.append(self.baking.bake_until if self.baking else None)
        times.append(self._hold_at())
        for member in self.members.values():
            times += [member.deadline, member.look_at]
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        if self._steer_at is not None and self._steer_at <= now:
            self._steer_at = None
            self._do(Live(self._live, self._live_weights))
        if self._close_at is not None and self._close_at <= now:
            self._close(now, 0)
        if self.baking and self.baking.bake_until is not None and self.baking.bake_until <= now:
            self._baked(now)
        for member in list(self.members.values()):
            if member.look_at is not None and member.look_at <= now:
                member.look_at = None
                self._do(Inspect(member.id))
            if member.deadline is not None and member.deadline <= now:
                member.deadline = None
                self._overdue(member, now)
        for slot in list(self.slots.values()):
            if slot.spawn_at is not None and slot.spawn_at <= now:
                slot.spawn_at = None
                if not slot.serving or self._leaves(slot.serving):
                    self._spawn(slot, self.generation, now)
        self._advance(now)

    # ---- inside ----------------------------------------------------------------

    def _overdue(self, member: Member, now: float) -> None:
        slot = self.slots[member.slot]
        if member.state in (State.STARTING, State.READY):
            member.overdue = True
            why = self._overdue_verdict(member)
            self._tell("overdue", member.id, why=why)
            self._cancel(member, now, Event.OVERDUE)
            if self.reloading and slot.incoming is member:
                self.reloading.verdicts[slot.index] = why
                self._abandon_reload(f"worker {slot.index} {why}", now)
        elif member.state is State.SERVING:
            self._tell("overdue", member.id, why=f"hung for {self.options.hang_timeout:g} s; ended")
            self._event(member, Event.HANG, now)
        elif member.state is State.DEAD:
            # Strays that left the process group hold its lanes; the end does
            # not wait for them.
            self.gone(member.id, now)
        else:
            self._tell("overdue", member.id, why=f"still {member.state.value}; killed")
            self._event(member, Event.OVERDUE, now)

    def _resize(self, count: int, now: float) -> None:
        for index in range(count):
            slot = self.slots.get(index)
            if slot is None:
                backoff = Backoff(self.options.respawn, self.options.backoff)
                slot = self.slots[index] = Slot(index, backoff, wanted=False)
            if not slot.wanted or slot.surplus:
                new, slot.surplus = not slot.surplus, False
                slot.wanted = True
                if self.reloading:
                    self.reloading.todo.append(index)
                    if not self.options.surge:
                        self._next_batch(self.reloading, now)
                elif new:
                    self._spawn(slot, self.generation, now)
        shared, away = self.options.balance == "shared", []
        for slot in self._kept():
            if slot.index >= count and shared and slot.serving:
                away.append(slot)
            elif slot.index >= count:
                slot.wanted, slot.spawn_at = False, None
                self._drop_incoming(slot, now)
                leaving = [member for member in (slot.serving, slot.previous) if member]
                slot.serving = slot.previous = None
                if self.reloading:
                    self.reloading.batch.discard(slot.index)
                self._steer()
                self._retire(leaving, now)
                self._settle_chain(slot)
        self._take_away(away, now)

    def _give_up_if_hopeless(self, now: float) -> None:
        most = self.options.give_up
        if most and not self.ever_ready and self._failures >= most and not self.closing:
            self._tell("gave_up", failures=self._failures)
            self.shutdown(now, code=1)
