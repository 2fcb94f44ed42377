"""Servers that go to the background: a leader that ends well, and leaves a daemon. Pure.

Such a worker has not booted, whatever it did before: nobody supervises what it left. Owns
that its strays are told to end (SIGTERM), and killed when they do not.

Invariant: a worker that went to the background counts as one that was never ready.
"""

from __future__ import annotations

from ..base.states import State
from .backoff import LEAST_HEALTHY_LIFE
from .commands import EndStrays
from .members import Member, Slot
from .slots import boot_failed
from .state import Population

WENT = "it went to the background: run it in the foreground, for nginx `daemon off;`"
STRAY_GRACE = 2.0  # from SIGTERM to SIGKILL
YOUNG = frozenset({State.STARTING, State.READY, State.SERVING})


def may_have_gone(people: Population, worker: int, status: int, now: float) -> bool:
    """Whether it is worth a look if it has left something."""
    member = people.members[worker]
    return _ended_well(member, status, now) or people.daemons


def _ended_well(member: Member, status: int, now: float) -> bool:
    """Unasked, and before it was of use."""
    young = member.ready_at is None or now - member.ready_at < LEAST_HEALTHY_LIFE
    return status == 0 and young and member.state in YOUNG


def has_gone(people: Population, member: Member, status: int, left: bool, now: float) -> bool:
    """`left`: it has left something. A daemon may escape the look once; its like do
    not make it a server."""
    well = _ended_well(member, status, now)
    if left or (well and people.daemons):
        _went(people, member)
        return True
    people.suspects += well and member.ready_at is not None
    return False


def _went(people: Population, member: Member) -> None:
    people.daemons = member.strays = True
    member.error = WENT
    people.proven -= people.suspects
    people.suspects = 0
    if member.ready_at is not None:  # taken back, with what followed from it
        member.ready_at = None
        people.proven -= 1
        people.failures = max(people.failures, member.failures_before)


def lost(people: Population, slot: Slot, member: Member, now: float) -> None:
    """It served, or so it seemed."""
    slot.serving = None
    slot.chain.append(member)
    boot_failed(people, slot, member, now)


def listens_late(people: Population, member: Member, now: float) -> None:
    """Its leader has ended, so what listens is a daemon that was not found then."""
    if member.ready_at is None and not member.strays:
        _went(people, member)
        end_strays(people, member, now)


def end_strays(people: Population, member: Member, now: float, *, kill: bool = False) -> None:
    """The dead worker's; looked for again until its last process is gone."""
    people.do(EndStrays(member.id, kill or people.closing))
    if not people.closing:
        member.deadline = now + STRAY_GRACE
