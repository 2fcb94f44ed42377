"""Code that serves, and dies of it, again and again, in every slot: a failed deploy. Pure.

Owns the count of early deaths. Decides nothing: each slot's backoff makes the pauses
between tries, and what is to be done is told, once for a generation.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import events
from ..options import Options
from .background import Background
from .backoff import LEAST_HEALTHY_LIFE
from .members import Member, Slot

AGAIN = 2  # deaths in a slot: one may be chance


class Failing(Background):
    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        super().__init__(options, random)
        self._told_failing = 0  # the generation

    def failed(self, worker: int, error: str, nothing: bool = False) -> None:
        """The worker told why it is about to end; `nothing`: there is nothing to run."""
        self.members[worker].error = error
        if nothing:
            self._nothing = error

    def _died_serving(self, slot: Slot, member: Member, why: str, now: float) -> None:
        """It was the serving one, and did not take leave."""
        since = member.served_at
        if since is None or now - since >= LEAST_HEALTHY_LIFE or member.leaving:
            slot.early = []
            return
        slot.early = [*(one for one in slot.early if one == member.generation), member.generation]
        generation, slots = member.generation, self._kept()
        if self._told_failing == generation or self.closing or self.reloading or self.baking:
            return
        if slots and all(self._fails(one, generation, now) for one in slots):
            self._told_failing = generation
            self._tell(events.Failing(generation, why), member.id)

    @staticmethod
    def _fails(slot: Slot, generation: int, now: float) -> bool:
        since = slot.serving.served_at if slot.serving else None
        healthy = since is not None and now - since >= LEAST_HEALTHY_LIFE
        return slot.early.count(generation) >= AGAIN and not healthy
