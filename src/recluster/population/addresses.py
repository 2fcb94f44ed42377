"""Who listens where: workers that give a lane up, addresses that nobody serves. Pure.

A worker that stops listening while it lives is replaced first: it stays the serving
one of its slot until its successor is ready, and that gets the queue of its lane.

`hold`: an address whose workers are all dead or deaf still takes connections, into
the lanes that wait for an heir. After a while it must not, or health checks would
take it for alive.

An address that was there before the workers (--bind, LISTEN_FDS), and that none of them
listens on when the first is ready, is `unclaimed`: clients are refused there, not held.

Invariant: an address is held only while a slot's worker that listened there has no
successor yet, and no serving worker listens there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .. import events
from ..options import Options
from .commands import Hold, Refuse
from .members import Member
from .reloading import Reloading
from .slots import LANE_GRACE

TOGETHER = 1.5  # seconds; who looks at its files once a second sees a change that much apart


class Addresses(Reloading):
    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        super().__init__(options, random)
        self._deserted: dict[str, float] = {}  # address -> since when
        self._held: set[str] = set()
        self.offered: set[str] = set()  # there before the workers, not claimed yet
        self.unclaimed: set[str] = set()  # of these, where clients are refused
        self._claim_by: float | None = None  # since somebody is ready
        self._stopped_at: dict[int, float] = {}  # slot -> when its worker did so last

    def deaf(self, worker: int, address: str, partly: bool, now: float) -> None:
        """The worker, alive, has given a lane up; `partly`: it has others there.
        What it closes before it has found its addresses is part of its start."""
        member = self.members[worker]
        slot = self.slots[member.slot]
        if member.hung_since is not None:  # now it is known why
            member.hung_since = member.deadline = None
        if not partly:
            member.addresses.discard(address)
        if not self._starts(member, now) or (member.ready_at is not None and not member.addresses):
            member.closed.add(address)
        if slot.serving is member and address in member.closed:
            self._tell(events.Deaf(address), worker)
            self._restarts(slot.index, now)
            # One of several processes may have ended; its like comes soon.
            self._replace_leaving(now, LANE_GRACE if partly else 0.0)
        elif slot.incoming is member and member.deadline is None and not self._fits(member, now):
            patience = self.options.ready_timeout  # once more: it had been in time
            member.deadline = None if patience is None else now + patience
        elif slot.previous is member and address in member.closed:
            slot.previous = None  # nothing to go back to
            self._retire([member], now)
        self._advance(now)

    def unseen(self, worker: int, addresses: Iterable[str]) -> None:
        """Where it listens though no door has seen it: nothing can be done, but to say so."""
        member = self.members[worker]
        for address in addresses:
            if address not in member.unseen:
                member.unseen.add(address)
                self._tell(events.Unseen(address), worker)

    def shared(self, places: Iterable[tuple[str, int, bool]]) -> None:
        """(address, how many, unsure): all where listeners of others are among the lanes."""
        before, self.shared_there = self.shared_there, set(places)
        for address, listeners, unsure in sorted(self.shared_there - before):
            self._tell(events.Shared(address, listeners, unsure))

    def _restarts(self, index: int, now: float) -> None:
        """A worker has stopped listening, or listens anew. When all do so at once and nobody
        has asked for a reload, it is mostly the program that watches its files."""
        self._stopped_at[index] = now
        wanted = [slot.index for slot in self._wanted()]
        together = [now - self._stopped_at.get(slot, -TOGETHER - 1) <= TOGETHER for slot in wanted]
        if len(wanted) > 1 and all(together) and not self.reloading and not self.closing:
            self._stopped_at.clear()
            self._tell(events.RestartTogether(len(wanted)))

    def _attends(self, member: Member, address: str, now: float) -> None:
        if address in member.addresses and not self._starts(member, now):
            self._restarts(member.slot, now)
        self._claimed(address)
        member.addresses.add(address)
        member.listened = True
        member.closed.discard(address)
        if self._starts(member, now):
            member.closed.clear()

    @staticmethod
    def _starts(member: Member, now: float) -> bool:
        return member.ready_at is None or now < member.ready_at + LANE_GRACE

    def _advance(self, now: float) -> None:
        super()._advance(now)
        self._replace_leaving(now)
        self._attend(now)
        self._miss_claims(now)

    def _replace_leaving(self, now: float, pause: float = 0.0) -> None:
        for slot in self._wanted():
            member, reload = slot.serving, self.reloading
            if not member or not member.leaves or slot.incoming or self.closing:
                continue
            if reload is None and slot.spawn_at is None:
                slot.spawn_at = max(self._replace_at(member, now), now + pause)
            elif reload and self.options.surge and slot.index not in reload.todo:
                reload.todo.append(slot.index)

    # ---- sockets that were there before -------------------------------------------

    def _claimed(self, address: str) -> None:
        self.offered.discard(address)
        if address in self.unclaimed:
            self.unclaimed.discard(address)
            self.do(Refuse(address, False))
            self._tell(events.Unclaimed(address, refused=False))

    def _miss_claims(self, now: float) -> None:
        """What nobody has claimed soon after the first was ready: some listen on one
        address after the other."""
        if not self.offered or self.closing:
            self._claim_by = None
        elif self._claim_by is None and self.ever_ready:
            self._claim_by = now + LANE_GRACE
        elif self._claim_by is not None and now >= self._claim_by:
            self._claim_by = None
            for address in sorted(self.offered):
                self.do(Refuse(address, True))
                self._tell(events.Unclaimed(address, refused=True))
            self.unclaimed |= self.offered
            self.offered = set()

    # ---- hold --------------------------------------------------------------------

    def _attend(self, now: float) -> None:
        hold = self.options.hold
        if not hold or self.closing:
            return
        lost = self._unserved()
        if not lost and not self._deserted:
            return
        served = self._served()
        for address in [one for one in self._deserted if one in served or one not in lost]:
            since = self._deserted.pop(address)
            if address in self._held:
                self._held.discard(address)
                self.do(Hold(address, False))
                if address in served:
                    self._tell(events.Hold(address, held=False, seconds=now - since))
        for address in sorted(lost - served):
            since = self._deserted.setdefault(address, now)
            if address not in self._held and now >= since + hold:
                self._held.add(address)
                self.do(Hold(address, True))
                self._tell(events.Hold(address, held=True, seconds=now - since))

    def _served(self) -> set[str]:
        """Where a serving worker listens."""
        serving = [slot.serving for slot in self.slots.values()]
        return set().union(*(member.addresses for member in serving if member))

    def _unserved(self) -> set[str]:
        """Where one did that has no successor yet. (What only a draining generation has
        is neither.)"""
        lost: set[str] = set()
        for slot in self.slots.values():
            if slot.serving:
                lost |= slot.serving.closed
            for member in slot.chain:
                lost |= member.addresses | member.closed
        return lost

    def _hold_at(self) -> float | None:
        if not self.options.hold or self.closing:
            return None
        times = [at for address, at in self._deserted.items() if address not in self._held]
        return min(times) + self.options.hold if times else None
