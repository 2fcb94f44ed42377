"""Slots and the workers in them: spawn, steer, retire, replace, bury. Pure.

What `reloading` and `population` are made of. Owns the members, the slots and the
commands; takes no decision that concerns more than one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .commands import (
    Abort,
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
from .lifecycle import ENDED, Act, Event, State, step
from .members import Member, Reload, Slot
from .options import Options

LOOK_EVERY = 0.1  # seconds between two looks at a retired worker's queue
LANE_GRACE = 1.0  # how long a ready worker may still open further addresses
CANCEL_GRACE = 5.0  # what a worker that never served gets between TERM and KILL
ABORT_GRACE = 2.0  # between SIGABRT and SIGKILL: to write the stack
APART = 0.05  # seconds between two of a generation that settle
HURRY_GRACE = 10.0  # between stop signal and SIGKILL when too many generations drain


class Slots:
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
        self.weights: dict[int, float] = dict(options.weights)  # slot -> weight
        self._live: frozenset[int] = frozenset()
        self._live_weights: dict[int, float] = {}
        self._steer_at: float | None = None
        self._close_at: float | None = None
        self._last_id = 0
        self._last_generation = 0
        self._last_reload = 0
        self._failures = 0
        self._code = 0

    @staticmethod
    def _leaves(member: Member) -> bool:
        """It serves less than it should, or will: to be replaced first."""
        return member.leaving or bool(member.closed)

    def take(self) -> list[Command]:
        """The commands since the last call, in the order to carry them out."""
        commands, self._commands = self._commands, []
        return commands

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
        elif act is Act.ABORT:
            member.deadline = now + ABORT_GRACE
            self._do(Abort(member.id))
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
        # A relief worker takes what is left in one lane, and nothing that is new.
        party = generation if self.options.balance == "shared" and not relief else 0
        self._do(Spawn(member.id, slot.index, generation, heir_of, party))
        return member

    def _cancel(self, member: Member, now: float, event: Event) -> None:
        """It never served: it owes nobody anything."""
        member.settle_until = now
        member.deadline = now + min(self.options.timeout, CANCEL_GRACE)
        self._event(member, event, now)

    def _retire(self, members: list[Member], now: float) -> None:
        settle = self.options.drain_settle
        # Not all at once: an interpreter that ends takes a CPU for a while, and
        # clients of those that serve feel it when many do.
        apart = 0.0 if self.closing or not members else min(APART, settle / len(members))
        if members:
            self._do(Retired(tuple(member.id for member in members)))
        for order, member in enumerate(members):
            member.hung_since = None
            member.retired_at = now
            member.settle_until = now + settle + order * apart
            if member.state is not State.ABORTED:
                member.deadline = max(now + self.options.timeout, member.settle_until)
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

    def _take_over(
        self, slots: list[Slot], now: float, keep: bool = False, going: tuple[Slot, ...] = ()
    ) -> None:
        """The incoming workers are live from one `Live` command on; the old ones
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
            self._event(new, Event.PROMOTE, now)
            slot.serving, slot.incoming, slot.spawn_at = new, None, None
            if before and keep:
                if not (self.baking and self.baking.canary):
                    if before.hung_since is not None:
                        before.hung_since = before.deadline = None
                    self._event(before, Event.DEMOTE, now)
                slot.previous = before
            elif before:
                old.append(before)
        self._steer()
        self._retire(old, now)
        for slot in [*slots, *going]:
            self._settle_chain(slot)

    def _fits(self, member: Member, now: float) -> bool:
        """Ready, and listening where the worker it replaces does; a part of that
        is enough after a grace. None of it is a wrong port: never."""
        if member.state is not State.READY or member.ready_at is None:
            return False
        old = self.slots[member.slot].serving
        wanted = old.addresses | (old.closed - member.closed) if old else set()
        if wanted <= member.addresses:
            return True
        kept = wanted & member.addresses
        return bool(kept) and now >= member.ready_at + LANE_GRACE

    def _wanted(self) -> Iterator[Slot]:
        return (slot for slot in list(self.slots.values()) if slot.wanted)

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
        if self._leaves(ended):  # nothing has failed
            at = self._replace_at(ended, now)
        else:
            at = slot.backoff.next_spawn(now, ended.born, ready_for, self._random)
        if not slot.wanted or slot.incoming or self.closing:
            return
        if self.reloading is None:
            slot.spawn_at = at
        elif self.options.surge and slot.index not in self.reloading.todo:
            self.reloading.todo.append(slot.index)  # its turn comes (again)

    def _replace_at(self, member: Member, now: float) -> float:
        return max(now, member.born + self.options.respawn)

    def _boot_failed(self, slot: Slot, member: Member, now: float) -> None:
        self._failures += 1
        self._plan_spawn(slot, member, now)

    def _steer(self) -> None:
        live: set[int] = set()
        for slot in self.slots.values():
            if slot.serving:
                live.add(slot.serving.id)
            if slot.previous and self.baking and self.baking.canary:
                live.add(slot.previous.id)
            if slot.chain:
                live.update(member.id for member in slot.chain)
            # A lane that appears in a slot without a worker is wanted at once,
            # where listening is what readiness means.
            eager = slot.incoming and not slot.serving and not self.reloading
            if slot.incoming and eager and self.options.ready_when == "listening":
                live.add(slot.incoming.id)
        weights = self._weigh(live)
        if live != self._live or weights != self._live_weights:
            self._live, self._live_weights = frozenset(live), weights
            self._do(Live(self._live, weights))

    def _weigh(self, live: set[int]) -> dict[int, float]:
        """Each worker's weight, if it is not 1: its slot's; beside a canary so
        that the canary's add up to its part, the others' to the rest."""
        members = [self.members[worker] for worker in sorted(live)]
        weights = {member.id: self.weights.get(member.slot, 1.0) for member in members}
        probation = self.baking
        if probation and probation.canary:
            sums = {True: 0.0, False: 0.0}
            for member in members:
                if member.state not in ENDED:
                    sums[member.generation == probation.generation] += weights[member.id]
            for member in members:
                new = member.generation == probation.generation
                if sums[True] and sums[False]:
                    part = probation.canary if new else 1 - probation.canary
                    weights[member.id] *= part / sums[new]
        return {worker: weight for worker, weight in weights.items() if weight != 1}

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
