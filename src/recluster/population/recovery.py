"""A population whose handling of an event has failed half-way, made whole again. Pure.

For what cannot happen and did. Invariants that `repair` brings back:
- no place of a slot is held by a worker that has ended, or that nobody knows;
- a wanted slot in which nobody serves or comes has a spawn planned;
- a reload waits only for workers that are there;
- a shutdown goes on to its end;
- a worker without a place in a slot is on its way out, and looked at until it is gone.
"""

from __future__ import annotations

from ..base.states import State
from .commands import Kill, Release
from .lifecycle import ENDED
from .members import Member, Slot
from .population import GONE_GRACE, LEAVING, Population
from .slots import LOOK_EVERY

PLACES = ("serving", "incoming", "healing", "previous")
LOOKED_AT = frozenset({State.SETTLING, State.DRAINING, State.GONE})
CANNOT = "the master could not handle what happened"


class Recovering(Population):
    def forget(self, worker: int, now: float) -> None:
        """It has ended, and handling that has failed: its queue has no heir."""
        member = self.members.pop(worker, None)
        if member is not None:
            for slot in self.slots.values():
                if member in slot.chain:
                    slot.chain.remove(member)
            self.do(Release(worker))
        self.repair(now)

    def repair(self, now: float) -> None:
        for slot in self.slots.values():
            for place in PLACES:
                self._clear_if_ended(slot, place)
        self._abandon_if_nobody_comes(now)
        for slot in self._wanted():
            waits = self.reloading and slot.index in (*self.reloading.unborn, *self.reloading.todo)
            if not (slot.serving or slot.coming() or slot.spawn_at is not None or waits):
                slot.spawn_at = now + self.options.respawn
            if slot.serving and slot.chain:  # a cutover went half-way
                self._settle_chain(slot)
        if self.closing:
            self._close_again(now)
        self._see_to_the_others(now)
        self._finish_if_empty()

    def _close_again(self, now: float) -> None:
        """A shutdown leaves nobody in a slot, and has an end."""
        leaving: list[Member] = []
        for slot in self.slots.values():
            slot.wanted, slot.spawn_at = False, None
            self._drop_coming(slot, now)
            leaving += [member for member in (slot.serving, slot.previous) if member]
            slot.serving = slot.previous = None
            self._settle_chain(slot)
        self._retire(leaving, now)
        if leaving or not self._close_by:
            self._limit_shutdown(now)
        for member in self.members.values():
            if member.state is State.DEAD and member.deadline is None:
                member.deadline = now + GONE_GRACE

    def _see_to_the_others(self, now: float) -> None:
        """Whoever has no place in a slot is on its way out, and watched."""
        placed: set[int] = set()
        for slot in self.slots.values():
            at = [getattr(slot, place) for place in PLACES]
            placed.update(member.id for member in (*at, *slot.chain) if member)
        for member in [one for one in self.members.values() if one.id not in placed]:
            if member.state in LOOKED_AT:
                member.look_at = member.look_at or now + LOOK_EVERY
            elif member.state is State.SERVING:
                self._retire([member], now)
            elif not member.relief:
                self._drop(member, now)
            if member.state is State.KILLED:
                self.do(Kill(member.id))
            elif member.state in LEAVING:
                member.deadline = member.deadline or now + self.options.timeout

    def _clear_if_ended(self, slot: Slot, place: str) -> None:
        member: Member | None = getattr(slot, place)
        if member is None:
            return
        known = self.members.get(member.id) is member
        if known and member.state not in ENDED:
            return
        setattr(slot, place, None)
        if known and place == "serving":
            slot.chain.append(member)

    def _abandon_if_nobody_comes(self, now: float) -> None:
        reload = self.reloading
        if reload is None:
            return
        for index in reload.batch:
            if index not in reload.unborn and self.slots[index].incoming is None:
                self._abandon_reload(f"worker {index}: {CANNOT}", now)
                return
