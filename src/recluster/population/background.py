"""Servers that go to the background: a leader that ends well, and leaves a daemon. Pure.

Such a worker has not booted, whatever it did before: nobody supervises what it left. Owns
that its strays are told to end (SIGTERM), and killed when they do not.

Invariant: a worker that went to the background counts as one that was never ready.
"""

from __future__ import annotations

from collections.abc import Callable

from ..base.states import State
from ..options import Options
from .backoff import LEAST_HEALTHY_LIFE
from .commands import EndStrays
from .members import Member, Slot
from .recycling import Recycling

WENT = "it went to the background: run it in the foreground, for nginx `daemon off;`"
STRAY_GRACE = 2.0  # from SIGTERM to SIGKILL
YOUNG = frozenset({State.STARTING, State.READY, State.SERVING})


class Background(Recycling):
    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        super().__init__(options, random)
        self._daemons = False  # this program was seen to do so
        self._suspects = 0  # ended well, ready and young, and nothing of them was found

    def may_have_gone(self, worker: int, status: int, now: float) -> bool:
        """Whether it is worth a look if it has left something."""
        member = self.members[worker]
        return self._ended_well(member, status, now) or self._daemons

    @staticmethod
    def _ended_well(member: Member, status: int, now: float) -> bool:
        """Unasked, and before it was of use."""
        young = member.ready_at is None or now - member.ready_at < LEAST_HEALTHY_LIFE
        return status == 0 and young and member.state in YOUNG

    def _has_gone(self, member: Member, status: int, left: bool, now: float) -> bool:
        """`left`: it has left something. A daemon may escape the look once; its like do
        not make it a server."""
        well = self._ended_well(member, status, now)
        if left or (well and self._daemons):
            self._went(member)
            return True
        self._suspects += well and member.ready_at is not None
        return False

    def _went(self, member: Member) -> None:
        self._daemons = member.strays = True
        member.error = WENT
        self._proven -= self._suspects
        self._suspects = 0
        if member.ready_at is not None:  # taken back, with what followed from it
            member.ready_at = None
            self._proven -= 1
            self._failures = max(self._failures, member.failures_before)

    def _lost(self, slot: Slot, member: Member, now: float) -> None:
        """It served, or so it seemed."""
        slot.serving = None
        slot.chain.append(member)
        self._boot_failed(slot, member, now)

    def _listens_late(self, member: Member, now: float) -> None:
        """Its leader has ended, so what listens is a daemon that was not found then."""
        if member.ready_at is None and not member.strays:
            self._went(member)
            self._end_strays(member, now)

    def _end_strays(self, member: Member, now: float, *, kill: bool = False) -> None:
        """The dead worker's; looked for again until its last process is gone."""
        self.do(EndStrays(member.id, kill or self.closing))
        if not self.closing:
            member.deadline = now + STRAY_GRACE
