"""How many slots there are, what each weighs, and one of them at a time. Pure.

A drained slot is not wanted, as one that was scaled away, but it keeps its place: it comes
back by `resume`, not by a reload or by scaling up.

Invariant: of the slots that are left at least one may get new connections.
"""

from __future__ import annotations

from collections.abc import Collection

from .addresses import Addresses
from .backoff import Backoff
from .members import Slot

SHARED = "not with balance shared: its workers have one queue; reload replaces them all"


class Sizing(Addresses):
    def scale(self, count: int, now: float) -> str | None:
        """Have that many slots; those above drain. Returns why not."""
        if self.closing:
            return None
        left = [index for index in range(count) if not self._drained(index)]
        if not left:
            return "all that would be left are drained: resume one first"
        why = self.cannot_weigh(self.weights, left)
        if why:
            return why
        if self.options.balance == "shared" and self.baking and self.baking.canary:
            return "not while a canary is on probation: promote it or roll it back first"
        self._resize(count, now)
        self._advance(now)
        return None

    def revised(self) -> None:
        """The options have other values."""
        for slot in self.slots.values():
            slot.backoff.floor = self.options.respawn
            slot.backoff.ceiling = self.options.backoff

    def weigh(self, weights: dict[int, float]) -> str | None:
        """Give these slots these weights. Returns why not."""
        together = {**self.weights, **weights}
        why = self.cannot_weigh(together, [slot.index for slot in self._kept()])
        if why is None and not self.closing:
            self.weights = together
        return why

    @staticmethod
    def cannot_weigh(weights: dict[int, float], slots: Collection[int]) -> str | None:
        if any(weights.get(index, 1.0) for index in slots):
            return None
        return f"the weights of all {len(slots)} slots would be 0: nobody would get a connection"

    # ---- one slot ----------------------------------------------------------------

    def restart(self, index: int, now: float) -> str | None:
        """Replace its worker, the successor first. Returns why not."""
        slot, why = self._asked_for(index)
        if slot is None:
            return why
        if slot.serving is None:
            if not slot.coming():
                slot.spawn_at = now
        elif self.options.balance == "shared":
            return SHARED
        else:
            slot.serving.leaving = True
            if not slot.coming():
                slot.spawn_at = now
        self._spawn_due(now)
        self._advance(now)
        return None

    def drain(self, index: int, now: float) -> str | None:
        """Retire its worker; nobody comes until `resume`. Returns why not."""
        slot, why = self._asked_for(index)
        if slot is None:
            return why
        if self.options.balance == "shared":
            return SHARED
        others = [other for other in self._kept() if other is not slot]
        if not any(other.serving for other in others):
            return "no other slot serves"
        why = self.cannot_weigh(self.weights, [other.index for other in others])
        if why:
            return why
        slot.drained = True
        self._empty(slot, now)
        self._advance(now)
        return None

    def resume(self, index: int, now: float) -> str | None:
        """Fill a drained slot again. Returns why not."""
        if self.closing:
            return "the cluster is shutting down"
        if not self._drained(index):
            return "it is not drained"
        slot = self.slots[index]
        slot.drained = False
        self._fill(slot, now)
        self._advance(now)
        return None

    def _asked_for(self, index: int) -> tuple[Slot | None, str | None]:
        slot = self.slots.get(index)
        if self.closing:
            return None, "the cluster is shutting down"
        if self.reloading:
            return None, "a reload is under way"
        if slot is not None and slot.drained:
            return None, "it is drained: resume it"
        if slot is None or not slot.wanted:
            return None, "there is no such slot"
        return slot, None

    def _drained(self, index: int) -> bool:
        slot = self.slots.get(index)
        return slot is not None and slot.drained

    # ---- inside --------------------------------------------------------------------

    def _resize(self, count: int, now: float) -> None:
        for index in range(count):
            slot = self.slots.get(index)
            if slot is None:
                backoff = Backoff(self.options.respawn, self.options.backoff)
                slot = self.slots[index] = Slot(index, backoff, wanted=False)
            if not slot.drained and (not slot.wanted or slot.surplus):
                self._fill(slot, now)
        for slot in self.slots.values():
            slot.drained = slot.drained and slot.index < count
        shared, away = self.options.balance == "shared", []
        for slot in self._kept():
            if slot.index >= count and shared and slot.serving:
                away.append(slot)
            elif slot.index >= count:
                self._empty(slot, now)
        self._take_away(away, now)

    def _fill(self, slot: Slot, now: float) -> None:
        new, slot.surplus = not slot.surplus, False
        slot.wanted = True
        if self.reloading:
            self.reloading.todo.append(slot.index)
            if not self.options.surge:
                self._next_batch(self.reloading, now)
        elif new:
            self._spawn(slot, self.generation, now)

    def _empty(self, slot: Slot, now: float) -> None:
        slot.wanted, slot.spawn_at = False, None
        self._drop_coming(slot, now)
        leaving = [member for member in (slot.serving, slot.previous) if member]
        slot.serving = slot.previous = None
        if self.reloading:
            self.reloading.batch.discard(slot.index)
        self._retire(leaving, now)
        self._settle_chain(slot)
