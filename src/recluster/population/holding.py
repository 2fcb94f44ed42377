"""Addresses that nobody serves. Pure.

`hold`: an address whose workers are all dead or deaf still takes connections, into
the lanes that wait for an heir. After a while it must not, or health checks would
take it for alive.

An address that was there before the workers (--bind, LISTEN_FDS), and that none of them
listens on when the first is ready, is `unclaimed`: clients are refused there, not held.

Invariant: an address is held only while a slot's worker that listened there has no
successor yet, and no serving worker listens there.
"""

from __future__ import annotations

from .. import events
from .commands import Hold, Refuse
from .slots import LANE_GRACE
from .state import Population


# ---- sockets that were there before -------------------------------------------
def claimed(people: Population, address: str) -> None:
    people.offered.discard(address)
    if address in people.unclaimed:
        people.unclaimed.discard(address)
        people.do(Refuse(address, False))
        people.tell(events.Unclaimed(address, refused=False))


def miss_claims(people: Population, now: float) -> None:
    """What nobody has claimed soon after the first was ready: some listen on one
    address after the other."""
    if not people.offered or people.closing:
        people.claim_by = None
    elif people.claim_by is None and people.ever_ready:
        people.claim_by = now + LANE_GRACE
    elif people.claim_by is not None and now >= people.claim_by:
        people.claim_by = None
        for address in sorted(people.offered):
            people.do(Refuse(address, True))
            people.tell(events.Unclaimed(address, refused=True))
        people.unclaimed |= people.offered
        people.offered = set()


# ---- hold --------------------------------------------------------------------
def attend(people: Population, now: float) -> None:
    hold = people.options.hold
    if not hold or people.closing:
        return
    lost = _unserved(people)
    if not lost and not people.deserted:
        return
    served = _served(people)
    for address in [one for one in people.deserted if one in served or one not in lost]:
        since = people.deserted.pop(address)
        if address in people.held:
            people.held.discard(address)
            people.do(Hold(address, False))
            if address in served:
                people.tell(events.Hold(address, held=False, seconds=now - since))
    for address in sorted(lost - served):
        since = people.deserted.setdefault(address, now)
        if address not in people.held and now >= since + hold:
            people.held.add(address)
            people.do(Hold(address, True))
            people.tell(events.Hold(address, held=True, seconds=now - since))


def _served(people: Population) -> set[str]:
    """Where a serving worker listens."""
    serving = [slot.serving for slot in people.slots.values()]
    return set().union(*(member.addresses for member in serving if member))


def _unserved(people: Population) -> set[str]:
    """Where one did that has no successor yet. (What only a draining generation has
    is neither.)"""
    lost: set[str] = set()
    for slot in people.slots.values():
        if slot.serving:
            lost |= slot.serving.closed
        for member in slot.chain:
            lost |= member.addresses | member.closed
    return lost


def hold_at(people: Population) -> float | None:
    if not people.options.hold or people.closing:
        return None
    times = [at for address, at in people.deserted.items() if address not in people.held]
    return min(times) + people.options.hold if times else None
