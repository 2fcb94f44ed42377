"""A slot in which nobody serves takes the first that can, whatever else is under way. Pure.

A slot is dark when its worker has died and none has taken its place. What may serve there
next is `incoming` (of the reload that is under way, or a respawn) and `healing`: a respawn
that a reload found under way, or one that was begun because `incoming` takes too long.

Invariants:
- a dark slot with a worker that fits is served in the same turn;
- who is on its way in a dark slot is not ended for a reload that is new, or has failed,
  while it takes no longer than boots have taken here;
- both run what is on disk: of two that are ready the reload's own comes first.
"""

from __future__ import annotations

from ..base.states import State
from .commands import Inherit
from .lifecycle import Event
from .members import Member, Reload, Slot
from .slots import Slots

BOOT_SLACK = 1.0  # seconds; a boot beside others takes longer than it did alone


class Healing(Slots):
    def _believed_until(self, member: Member) -> float:
        """How long it may take to boot before another try is begun beside it: twice what
        boots have taken here. Where none is known it is not waited for."""
        longest = self._longest_boot
        return member.born if longest is None else member.born + 2 * longest + BOOT_SLACK

    def _set_aside(self, slot: Slot, now: float) -> None:
        """A new reload begins. What is on its way in a dark slot goes on beside it; of two
        the older one, which is nearer to its end, while it can be believed in."""
        if not slot.dark:
            self._drop_coming(slot, now)
            return
        self._keep_one(slot, now)
        slot.healing, slot.incoming = slot.incoming, None

    def _keep_one(self, slot: Slot, now: float) -> None:
        """Of what is on its way in a dark slot one goes on, as an ordinary respawn."""
        keep, other = slot.healing, slot.incoming
        if keep is None or (other and now >= self._believed_until(keep)):
            keep, other = other, keep
        slot.incoming, slot.healing = keep, None
        self._drop(other, now)

    def _heal(self, now: float) -> None:
        """Each dark slot gets the first of its workers that fits."""
        for slot in self._wanted():
            fit = [member for member in slot.coming() if self._fits(member, now)]
            if slot.dark and fit and not slot.surplus:
                self._serve_first(slot, fit[0], now)

    def _serve_first(self, slot: Slot, member: Member, now: float) -> None:
        other = next((one for one in slot.coming() if one is not member), None)
        reload = self.reloading
        slot.incoming, slot.healing = member, None
        self._take_over([slot], now)
        if reload and slot.index in reload.batch and member.generation == reload.generation:
            self._switched(reload, slot, member, now)
        elif reload and other and other.generation == reload.generation:
            slot.incoming, other = other, None  # the reload still waits for it
        self._drop(other, now)

    def _respawn_at(self, slot: Slot, at: float) -> None:
        """When a slot whose worker has died gets another. A reload's own is believed in
        first (`_respawn`)."""
        if self.reloading is None and slot.coming():
            return
        if slot.healing is None:
            slot.spawn_at = at

    def _spawn_due(self, now: float) -> None:
        """Whose time has come."""
        for slot in list(self.slots.values()):
            if slot.spawn_at is not None and slot.spawn_at <= now:
                slot.spawn_at = None
                if not slot.serving or slot.serving.leaves:
                    self._respawn(slot, now)

    def _respawn(self, slot: Slot, now: float) -> None:
        reload = self.reloading
        if reload is None:
            if not slot.coming():
                self._spawn(slot, self.generation, now)
        elif slot.incoming is None:  # its turn is now
            for waiting in (reload.todo, reload.unborn):
                if slot.index in waiting:
                    waiting.remove(slot.index)
            reload.batch.add(slot.index)
            self._spawn(slot, reload.generation, now)
        elif slot.healing is None and self._longest_boot is not None:
            until = self._believed_until(slot.incoming)
            if now < until:
                slot.spawn_at = until
            else:
                heir_of = slot.chain[-1].id if slot.chain else 0
                slot.healing = self._new_member(slot, reload.generation, heir_of, now)

    def _bequeath(self, slot: Slot, dead: Member) -> None:
        """Who is on its way gets what the dead one leaves, where it has not listened yet."""
        for member in slot.coming():
            if member.state is State.STARTING and not member.addresses and not member.heir_of:
                member.heir_of = dead.id
                self.do(Inherit(member.id, dead.id))

    def is_booting(self, worker: int) -> bool:
        member = self.members[worker]
        return member.state is State.STARTING and member in self.slots[member.slot].coming()

    def start_again(self, worker: int, now: float) -> None:
        """Another in the place of one that boots, by no fault of it: how workers are started
        has changed."""
        member = self.members[worker]
        slot = self.slots[member.slot]
        self._event(member, Event.KILL, now)
        new = self._new_member(slot, member.generation, member.heir_of, now)
        if slot.incoming is member:
            slot.incoming = new
        else:
            slot.healing = new

    @staticmethod
    def _switched(reload: Reload, slot: Slot, member: Member, now: float) -> None:
        """The slot has the reload's generation."""
        seconds = (now if member.ready_at is None else member.ready_at) - member.born
        reload.verdicts[slot.index] = f"ready after {seconds:.3f} s"
        reload.after |= member.addresses
        reload.switched.add(slot.index)
        reload.batch.discard(slot.index)
