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

from collections.abc import Callable, Iterator
from typing import Any

from .backoff import Backoff
from .commands import (
    CloseLanes,
    Command,
    Disconnect,
    Ended,
    Inspect,
    Kill,
    Leave,
    Live,
    Notice,
    Release,
    Retired,
    Spawn,
)
from .draining import Facts, finished, settled
from .lifecycle import ENDED, RETIRED, Act, Event, State, step
from .members import Member, Reload, Slot
from .options import Options

LOOK_EVERY = 0.1  # seconds between two looks at a retired worker's queue
LANE_GRACE = 1.0  # how long a ready worker may still open further addresses
CANCEL_GRACE = 5.0  # what a worker that never served gets between TERM and KILL
GONE_GRACE = 5.0  # at the end: how long strays of a dead worker are waited for
HURRY_GRACE = 10.0  # between stop signal and SIGKILL when too many generations drain
RELIEF_TRIES = 3
STEER_AGAIN = 0.1


class Population:
    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        self.options = options
        self.generation = 0
        self.members: dict[int, Member] = {}
        self.slots: dict[int, Slot] = {}
        self.reloading: Reload | None = None
        self.baking: Reload | None = None  # cut over, may yet be rolled back
        self.closing = False
        self.killing = False  # terminate: nobody is waited for or relieved
        self.ended: int | None = None
        self.ever_ready = False
        self._random = random
        self._commands: list[Command] = []
        self._live: frozenset[int] = frozenset()
        self._steer_at: float | None = None
        self._close_at: float | None = None
        self._last_id = 0
        self._last_generation = 0
        self._last_reload = 0
        self._failures = 0
        self._code = 0

    def take(self) -> list[Command]:
        """The commands since the last call, in the order to carry them out."""
        commands, self._commands = self._commands, []
        return commands

    # ---- what the caller asks for --------------------------------------------

    def start(self, now: float) -> None:
        self.generation = self._last_generation = 1
        self._resize(self.options.workers, now)

    def scale(self, count: int, now: float) -> None:
        """Have that many slots; those above drain."""
        if self.closing:
            return
        self._resize(count, now)
        self._advance(now)

    def reload(self, now: float) -> int:
        """Replace all workers by a new generation. Returns the reload's number."""
        self._last_reload += 1
        number = self._last_reload
        if self.closing:
            self._tell_reload(Reload(0, now, number), False, "the cluster is shutting down", now)
            return number
        if self.reloading:
            self._abandon_reload("superseded by a newer reload", now)
        if self.baking:
            self._baked(now)
        self._last_generation += 1
        self.reloading = Reload(self._last_generation, now, number)
        for slot in self._wanted():
            self._drop_incoming(slot, now)
            slot.spawn_at = None
            self.reloading.todo.append(slot.index)
            self.reloading.before |= slot.serving.addresses if slot.serving else set()
        self._next_batch(self.reloading, now)
        self._advance(now)
        return number

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
        if self.baking:
            self._baked(now)
        self._close_at = None
        self.closing = True
        self._code = code
        self._do(CloseLanes())
        leaving = []
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

    # ---- what happened -------------------------------------------------------

    def online(self, worker: int, now: float) -> None:
        """The process runs, and its door is open."""
        self._tell("online", worker)
        if self.options.ready_when == "started":
            self.ready(worker, now)

    def listening(self, worker: int, address: str, now: float) -> None:
        member = self.members[worker]
        member.addresses.add(address)
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
        slot = self.slots[member.slot]
        self._tell("disconnect", worker)
        if slot.serving is not member or member.leaving:
            return
        member.leaving = True
        if not slot.incoming and not self.reloading:
            slot.spawn_at = max(now, member.born + self.options.respawn)
        self.tick(now)

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
                slot.chain.append(member)
                self._boot_failed(slot, member, now)
        elif slot.serving is member:
            slot.serving = None
            slot.chain.append(member)
            self._plan_spawn(slot, member, now)
        elif slot.previous is member:
            slot.previous = None
        rolled_back = None
        if self.baking and member.generation == self.baking.generation and before is State.SERVING:
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
            if facts.queued and not self.killing and member.relief < RELIEF_TRIES:
                self._relieve(member, facts.queued, now)
            else:
                self._release(member)
                heir = self.members.get(member.heir_of)
                if heir and heir.state is State.GONE and heir not in self.slots[heir.slot].chain:
                    self._do(Inspect(heir.id))

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
        for member in self.members.values():
            times += [member.deadline, member.look_at]
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        if self._steer_at is not None and self._steer_at <= now:
            self._steer_at = None
            self._do(Live(self._live))
        if self._close_at is not None and self._close_at <= now:
            self._close(now, 0)
        if self.baking and self.baking.bake_until <= now:
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
                self._spawn(slot, self.generation, now)
        self._advance(now)

    # ---- inside: one worker --------------------------------------------------------

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _tell(self, name: str, worker: int = 0, **details: Any) -> None:
        self._do(Notice(name, worker, details))

    def _event(self, member: Member, event: Event, now: float) -> None:
        member.state, act = step(member.state, event)
        if act is Act.SETTLE:
            member.look_at = now + LOOK_EVERY
        elif act is Act.DRAIN:
            member.draining_since = now
            self._do(Disconnect(member.id))
            self._do(Inspect(member.id))
        elif act is Act.LEAVE:
            member.look_at = None
            if not self.killing:
                self._do(Leave(member.id))
        elif act is Act.KILL:
            member.deadline = member.look_at = None
            self._do(Kill(member.id))

    def _spawn(self, slot: Slot, generation: int, now: float) -> None:
        heir_of = 0
        if not self.reloading or slot.index not in self.reloading.batch:
            heir = slot.chain[-1] if slot.chain else slot.serving
            heir_of = heir.id if heir else 0
        slot.incoming = self._new_member(slot, generation, heir_of, now)
        self._steer()

    def _new_member(
        self, slot: Slot, generation: int, heir_of: int, now: float, relief: int = 0
    ) -> Member:
        self._last_id += 1
        patience = self.options.ready_timeout
        member = Member(
            id=self._last_id,
            slot=slot.index,
            generation=generation,
            born=now,
            heir_of=heir_of,
            relief=relief,
            deadline=None if patience is None else now + patience,
        )
        self.members[member.id] = member
        self._do(Spawn(member.id, slot.index, generation, heir_of))
        return member

    def _retire(self, members: list[Member], now: float) -> None:
        settle = self.options.drain_settle
        if members:
            self._do(Retired(tuple(member.id for member in members)))
        for member in members:
            member.retired_at = now
            member.settle_until = now + settle
            member.deadline = now + max(self.options.timeout, settle)
            self._event(member, Event.RETIRE, now)
        self._limit_draining(now)

    def _limit_draining(self, now: float) -> None:
        """Memory is finite: the oldest of too many draining generations goes."""
        draining = [m for m in self.members.values() if m.state in (State.SETTLING, State.DRAINING)]
        generations = sorted({member.generation for member in draining})
        for generation in generations[: -self.options.max_draining]:
            self._tell("hurried", generation=generation, most=self.options.max_draining)
            for member in draining:
                if member.generation == generation:
                    least = min(member.deadline or now, now + HURRY_GRACE)
                    member.deadline = max(member.settle_until, least)
                    self._event(member, Event.HURRY, now)

    def _cancel(self, member: Member, now: float, event: Event) -> None:
        """It never served: it owes nobody anything."""
        member.settle_until = now
        member.deadline = now + min(self.options.timeout, CANCEL_GRACE)
        self._event(member, event, now)

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
        elif member.state is State.DEAD:
            # Strays that left the process group hold its lanes; the end does
            # not wait for them.
            self.gone(member.id, now)
        else:
            self._tell("overdue", member.id, why=f"still {member.state.value}; killed")
            self._event(member, Event.OVERDUE, now)

    def _overdue_verdict(self, member: Member) -> str:
        within = f"within {self.options.ready_timeout:g} s"
        old = self.slots[member.slot].serving
        missing = sorted(old.addresses - member.addresses) if old else []
        if missing and len(missing) == len(old.addresses if old else ()):
            return f"never listened on {', '.join(missing)} {within}"
        what = "listening" if self.options.ready_when == "listening" else "ready"
        return f"was not {what} {within}"

    @staticmethod
    def _boot_verdict(
        status: int, member: Member, now: float, when: str = ", before it was ready"
    ) -> str:
        how = f"exited with code {status}" if status >= 0 else f"was ended by signal {-status}"
        why = f" ({member.error})" if member.error else ""
        return f"{how} after {now - member.born:.1f} s{when}{why}"

    # ---- inside: slots -------------------------------------------------------------

    def _wanted(self) -> Iterator[Slot]:
        return (slot for slot in list(self.slots.values()) if slot.wanted)

    def _resize(self, count: int, now: float) -> None:
        for index in range(count):
            slot = self.slots.get(index)
            if slot is None:
                backoff = Backoff(self.options.respawn, self.options.backoff)
                slot = self.slots[index] = Slot(index, backoff, wanted=False)
            if not slot.wanted:
                slot.wanted = True
                if self.reloading:
                    self.reloading.todo.append(index)
                    if not self.options.surge:
                        self._next_batch(self.reloading, now)
                else:
                    self._spawn(slot, self.generation, now)
        for slot in list(self._wanted()):
            if slot.index >= count:
                slot.wanted, slot.spawn_at = False, None
                self._drop_incoming(slot, now)
                leaving = [member for member in (slot.serving, slot.previous) if member]
                slot.serving = slot.previous = None
                if self.reloading:
                    self.reloading.batch.discard(slot.index)
                self._steer()
                self._retire(leaving, now)
                self._settle_chain(slot)

    def _drop_incoming(self, slot: Slot, now: float) -> None:
        member, slot.incoming = slot.incoming, None
        if member and member.state in (State.STARTING, State.READY):
            self._cancel(member, now, Event.RETIRE)

    def _settle_chain(self, slot: Slot) -> None:
        """The dead of this slot have a successor, or will not get one."""
        chain, slot.chain = slot.chain, []
        self._steer()
        for member in chain:
            if member.state is State.GONE:
                self._do(Inspect(member.id))

    def _plan_spawn(self, slot: Slot, ended: Member, now: float) -> None:
        ready_for = None if ended.ready_at is None else now - ended.ready_at
        at = slot.backoff.next_spawn(now, ended.born, ready_for, self._random)
        if not slot.wanted or slot.incoming or self.closing:
            return
        if self.reloading is None:
            slot.spawn_at = at
        elif self.options.surge and slot.index not in self.reloading.todo:
            self.reloading.todo.append(slot.index)  # its turn comes (again)

    def _boot_failed(self, slot: Slot, member: Member, now: float) -> None:
        self._failures += 1
        self._plan_spawn(slot, member, now)

    def _give_up_if_hopeless(self, now: float) -> None:
        most = self.options.give_up
        if most and not self.ever_ready and self._failures >= most and not self.closing:
            self._tell("gave_up", failures=self._failures)
            self.shutdown(now, code=1)

    def _steer(self) -> None:
        live: set[int] = set()
        for slot in self.slots.values():
            if slot.serving:
                live.add(slot.serving.id)
            live.update(member.id for member in slot.chain)
            # A lane that appears in a slot without a worker is wanted at once,
            # where listening is what readiness means.
            eager = slot.incoming and not slot.serving and not self.reloading
            if slot.incoming and eager and self.options.ready_when == "listening":
                live.add(slot.incoming.id)
        if live != self._live:
            self._live = frozenset(live)
            self._do(Live(self._live))

    # ---- inside: the dead ------------------------------------------------------------

    def _relieve(self, member: Member, queued: int, now: float) -> None:
        """A retired worker died and left connections waiting: somebody must
        accept them who is not steered to."""
        slot = self.slots[member.slot]
        self._tell("relief", member.id, queued=queued)
        member.relief += 1  # counts the attempts of the queue, whoever holds it
        self._new_member(slot, self.generation, member.id, now, relief=member.relief)

    def _release_heirs_of(self, member: Member) -> None:
        heir = self.members.get(member.heir_of)
        while heir is not None and heir.state is State.GONE:
            following = self.members.get(heir.heir_of)
            self._do(Release(heir.id))
            del self.members[heir.id]
            heir = following

    def _release(self, member: Member) -> None:
        self._do(Release(member.id))
        del self.members[member.id]
        self._finish_if_empty()

    def _finish_if_empty(self) -> None:
        if not self.closing or self.ended is not None:
            return
        waited_for = self.members.values()
        if self.killing:
            left = any(member.state not in ENDED for member in waited_for)
        else:
            left = bool(self.members)
        if not left:
            self.ended = self._code
            self._do(Ended(self._code))

    # ---- inside: taking over -----------------------------------------------------------

    def _fits(self, member: Member, now: float) -> bool:
        """Ready, and listening where the worker it replaces does; a part of that
        is enough after a grace. None of it is a wrong port: never."""
        if member.state is not State.READY or member.ready_at is None:
            return False
        old = self.slots[member.slot].serving
        if old is None or old.addresses <= member.addresses:
            return True
        kept = old.addresses & member.addresses
        return bool(kept) and now >= member.ready_at + LANE_GRACE

    def _advance(self, now: float) -> None:
        if self.reloading:
            while self.reloading and self._cut_over_if_complete(self.reloading, now):
                pass
        else:
            for slot in self._wanted():
                if slot.incoming and self._fits(slot.incoming, now):
                    self._take_over([slot], now)
        if self.killing:
            self._finish_if_empty()

    def _take_over(self, slots: list[Slot], now: float, keep: bool = False) -> None:
        """The incoming workers are live from one `Live` command on; the old ones
        retire, or are kept ready."""
        old = []
        for slot in slots:
            before, new = slot.serving, slot.incoming
            assert new is not None
            new.deadline = new.look_at = None
            self._event(new, Event.PROMOTE, now)
            slot.serving, slot.incoming, slot.spawn_at = new, None, None
            if before and keep:
                self._event(before, Event.DEMOTE, now)
                slot.previous = before
            elif before:
                old.append(before)
        self._steer()
        self._retire(old, now)
        for slot in slots:
            self._settle_chain(slot)

    # ---- inside: reloads -------------------------------------------------------------

    def _next_batch(self, reload: Reload, now: float) -> None:
        size = self.options.surge or len(reload.todo)
        turn, reload.todo = reload.todo[:size], reload.todo[size:]
        for index in turn:
            slot = self.slots[index]
            if slot.wanted and not slot.incoming:
                reload.batch.add(index)
                self._spawn(slot, reload.generation, now)

    def _cut_over_if_complete(self, reload: Reload, now: float) -> bool:
        """True if a batch was switched and another begun."""
        slots = [self.slots[index] for index in sorted(reload.batch)]
        for slot in slots:
            if slot.incoming is None or not self._fits(slot.incoming, now):
                return False
        for slot in slots:
            assert slot.incoming is not None
            seconds = (slot.incoming.ready_at or now) - slot.incoming.born
            reload.verdicts[slot.index] = f"ready after {seconds:.3f} s"
            reload.after |= slot.incoming.addresses
            reload.switched.add(slot.index)
        reload.batch.clear()
        bake = self.options.bake
        last = not reload.todo
        if last:
            self.reloading = None
        self._take_over(slots, now, keep=bool(bake))
        if not last:
            self._next_batch(reload, now)
            return True
        self.generation = reload.generation
        if bake:
            reload.bake_until = now + bake
            self.baking = reload
            self._tell("baking", generation=reload.generation, seconds=bake)
        else:
            self._succeeded(reload, now)
        return False

    def _succeeded(self, reload: Reload, now: float) -> None:
        came, went = reload.after - reload.before, reload.before - reload.after
        self._tell_reload(reload, True, None, now, came=sorted(came), went=sorted(went))

    def _baked(self, now: float) -> None:
        """The new generation has proved itself, or nobody waits for that."""
        reload, self.baking = self.baking, None
        assert reload is not None
        old = [slot.previous for slot in self.slots.values() if slot.previous]
        for slot in self.slots.values():
            slot.previous = None
        self._retire(old, now)
        self._succeeded(reload, now)

    def _roll_back(self, why: str, now: float) -> None:
        """The old generation, kept undrained, is live again in one step."""
        reload, self.baking = self.baking, None
        assert reload is not None
        failed = []
        for slot in self._wanted():
            if slot.previous is None:
                continue  # it has died meanwhile: better the new one than none
            self._drop_incoming(slot, now)
            if slot.serving:
                failed.append(slot.serving)
            self._event(slot.previous, Event.PROMOTE, now)
            self.generation = slot.previous.generation
            slot.serving, slot.previous, slot.spawn_at = slot.previous, None, None
        self._steer()
        self._retire(failed, now)
        for slot in self._wanted():
            if slot.serving:
                self._settle_chain(slot)
        self._tell_reload(reload, False, f"{why}: rolled back", now)

    def _abandon_reload(self, why: str, now: float) -> None:
        """Nothing changes for clients: the new workers go, the old stay. (What a
        rolling reload has switched so far stays switched, and is told.)"""
        reload, self.reloading = self.reloading, None
        if reload is None:
            return
        for slot in self._wanted():
            self._drop_incoming(slot, now)
            reload.verdicts.setdefault(slot.index, "stopped: the reload failed")
            if slot.serving is None or slot.serving.leaving:
                slot.spawn_at = now + self.options.respawn
        self._steer()
        if reload.switched:
            numbers = ", ".join(map(str, sorted(reload.switched)))
            why += f"; slots {numbers} have generation {reload.generation} already"
        self._tell_reload(reload, False, why, now)

    def _tell_reload(
        self, reload: Reload, ok: bool, why: str | None, now: float, **more: Any
    ) -> None:
        self._tell(
            "reload",
            ok=ok,
            why=why,
            number=reload.number,
            generation=reload.generation,
            seconds=now - reload.began,
            verdicts=dict(reload.verdicts),
            **more,
        )
