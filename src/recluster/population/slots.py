"""Slots and the workers in them: spawn, steer, retire, replace, bury. Pure.

What `reloading` and `population` are made of. Owns the members, the slots and the
commands; takes no decision that concerns more than one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import events
from ..base.states import State
from ..options import Options
from .commands import (
    Abort,
    Command,
    Disconnect,
    Ended,
    GiveUp,
    Inspect,
    Kill,
    Leave,
    Live,
    Notice,
    Release,
    Retired,
    Spawn,
)
from .lifecycle import ENDED, Act, Event, step
from .live import live, placed, weigh
from .members import Member, Reload, Slot

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
        self._proven = 0  # workers that became ready, and did not go to the background then
        self._nothing = ""  # that there is nothing to run, as a worker has found
        self._random = random
        self.commands: list[Command] = []
        self.about = 0  # the worker that `tick` looks at
        self.weights: dict[int, float] = dict(options.weights)  # slot -> weight
        self._live: frozenset[int] = frozenset()
        self._live_weights: dict[int, float] = {}
        self._refused = False  # what is in force is not what was asked for
        self._steer_at: float | None = None
        self._close_at: float | None = None
        self._close_by = 0.0  # when the last worker will be gone
        self._urge_at: float | None = None  # the stop signal comes once more
        self._waiting_at: float | None = None  # it is told what is waited for
        self.shared_there: set[tuple[str, int, bool]] = set()  # where others listen too
        self._last_id = 0
        self._last_generation = 0
        self._last_reload = 0
        self.last_reload: dict[str, Any] | None = None  # how the last one went
        self._failures = 0
        self._code = 0
        self._rejected: set[int] = set()  # generations that were rolled back
        self._dies_of_stop: bool | None = None  # what was seen of this program; None: nothing
        self._longest_boot: float | None = None  # seconds from birth to ready, here

    @property
    def shutting_down(self) -> bool:
        """Asked to, though it may still accept (`shutdown_delay`)."""
        return self.closing or self._close_at is not None

    @property
    def reloads(self) -> int:
        """How many were asked for."""
        return self._last_reload

    def take(self) -> list[Command]:
        """The commands since the last call, in the order to carry them out."""
        commands, self.commands = self.commands, []
        change = self._change()
        return commands if change is None else placed(commands, change)

    def _change(self) -> Live | None:
        """What is live, if that is another than what is in force."""
        canary = bool(self.baking and self.baking.canary)
        when, reloads = self.options.ready_when, self.reloading is not None
        found = frozenset(live(self.slots.values(), when, reloads, canary) & self.members.keys())
        weights = weigh(found, self.members, self.weights, self.baking)
        if (found, weights) == (self._live, self._live_weights) and not self._refused:
            return None
        self._refused = False
        self._live, self._live_weights = found, weights
        return Live(self._live, weights)

    def do(self, command: Command) -> None:
        self.commands.append(command)

    def _tell(self, event: events.Event, worker: int = 0) -> None:
        self.do(Notice(event, worker))

    def _event(self, member: Member, event: Event, now: float) -> None:
        member.state, act = step(member.state, event)
        if act is Act.SETTLE:
            member.look_at = now + LOOK_EVERY
        elif act is Act.DRAIN:
            member.draining_since = now
            self.do(Disconnect(member.id))
            self.do(Inspect(member.id))
        elif act is Act.LEAVE:
            member.look_at = None
            if not self.killing and not member.told:
                member.left_at = now
                self.do(Leave(member.id))
        elif act is Act.ABORT:
            member.deadline = now + ABORT_GRACE
            self.do(GiveUp(member.id))
            self.do(Abort(member.id))
        elif act is Act.KILL:
            member.deadline = member.look_at = None
            self.do(Kill(member.id))

    def _spawn(self, slot: Slot, generation: int, now: float) -> None:
        heir = slot.chain[-1] if slot.chain else None
        if not heir and not (self.reloading and slot.index in self.reloading.batch):
            heir = slot.serving
        slot.incoming = self._new_member(slot, generation, heir.id if heir else 0, now)

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
        # A relief worker takes what is left in one lane, and nothing that is new.
        party = generation if self.options.balance == "shared" and not relief else 0
        self.do(Spawn(member.id, slot.index, generation, heir_of, party))
        self.members[member.id] = member
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
            self.do(Retired(tuple(member.id for member in members)))
        for order, member in enumerate(members):
            member.hung_since = None
            member.retired_at = now
            member.settle_until = now + order * apart
            if self.closing or not member.only_unix:
                member.settle_until += settle
            if member.state is not State.ABORTED:
                member.deadline = max(now + self.options.timeout, member.settle_until)
            self._event(member, Event.RETIRE, now)
        self._limit_draining(now)

    def _limit_draining(self, now: float) -> None:
        """Memory is finite: the oldest of too many draining generations goes."""
        draining = [m for m in self.members.values() if m.state in (State.SETTLING, State.DRAINING)]
        generations = sorted({member.generation for member in draining})
        for generation in generations[: -self.options.max_draining]:
            self._tell(events.Hurried(generation, self.options.max_draining))
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
            new.served_at = now
            slot.serving, slot.incoming, slot.spawn_at = new, None, None
            self._drop(slot.healing, now)
            slot.healing = None
            if before and keep:
                if not (self.baking and self.baking.canary):
                    if before.hung_since is not None:
                        before.hung_since = before.deadline = None
                    self._event(before, Event.DEMOTE, now)
                slot.previous = before
            elif before:
                old.append(before)
        self._retire(old, now)
        for slot in [*slots, *going]:
            self._settle_chain(slot)

    def _fits(self, member: Member, now: float) -> bool:
        """Ready, and listening where it is expected to; a part of that is enough after
        a grace, and at once where nobody serves. None of it is a wrong port: never."""
        if member.state is not State.READY or member.ready_at is None or member.proving:
            return False
        wanted = self._expected(member)
        if wanted <= member.addresses:
            return True
        kept = wanted & member.addresses
        dark = self.slots[member.slot].dark
        return bool(kept) and (dark or now >= member.ready_at + LANE_GRACE)

    def _expected(self, member: Member) -> set[str]:
        """Where a worker must listen to serve in its slot: where the one that it replaces
        does or, if that one is dead, did; in a slot that is new, where all others do. Else
        code with a wrong port would take a dark slot, and the mended code, which does not
        listen there, never could."""
        slot = self.slots[member.slot]
        if slot.serving:
            return slot.serving.addresses | (slot.serving.closed - member.closed)
        if slot.served:
            return slot.served
        others = [other.serving.addresses for other in self._wanted() if other.serving]
        return set.intersection(*others) if others else set()

    @property
    def ever_ready(self) -> bool:
        return self._proven > 0

    def _wanted(self) -> Iterator[Slot]:
        return (slot for slot in list(self.slots.values()) if slot.wanted)

    def _drop_coming(self, slot: Slot, now: float) -> None:
        dropped = slot.coming()
        slot.incoming = slot.healing = None
        for member in dropped:
            self._drop(member, now)

    def _drop(self, member: Member | None, now: float) -> None:
        if member and member.state in (State.STARTING, State.READY):
            self._cancel(member, now, Event.RETIRE)

    def _settle_chain(self, slot: Slot) -> None:
        """The dead of this slot have a successor, or will not get one."""
        chain, slot.chain = slot.chain, []
        for member in chain:
            if member.state is State.GONE:
                self.do(Inspect(member.id))

    def _plan_spawn(self, slot: Slot, ended: Member, now: float) -> None:
        # A ready one that waited long for its siblings has not proved itself by that.
        since = ended.served_at or ended.ready_at
        ready_for = None if since is None else now - since
        if ended.leaves:  # nothing has failed
            at = self._replace_at(ended, now)
        else:
            at = slot.backoff.next_spawn(now, ended.born, ready_for, self._random)
        if ended.left_waiting and ended.served_at is not None:
            at = now
        if slot.wanted and not self.closing:
            self._respawn_at(slot, at)

    def _respawn_at(self, slot: Slot, at: float) -> None:
        if not slot.coming():
            slot.spawn_at = at

    def _replace_at(self, member: Member, now: float) -> float:
        return max(now, member.born + self.options.respawn)

    def _boot_failed(self, slot: Slot, member: Member, now: float) -> None:
        self._failures += 1
        self._plan_spawn(slot, member, now)

    def _relieve(self, member: Member, queued: int, now: float) -> None:
        """A retired worker died and left connections waiting: somebody must
        accept them who is not steered to."""
        slot = self.slots[member.slot]
        self._tell(events.Relief(queued), member.id)
        member.relief += 1  # counts the attempts of the queue, whoever holds it
        self._new_member(slot, self.generation, member.id, now, relief=member.relief)

    def _release_heirs_of(self, member: Member) -> None:
        heir = self.members.get(member.heir_of)
        while heir is not None and heir.state is State.GONE:
            following = self.members.get(heir.heir_of)
            self.do(Release(heir.id))
            del self.members[heir.id]
            heir = following

    def _release(self, member: Member) -> None:
        self.do(Release(member.id))
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
            self.do(Ended(self._code))
