"""Who listens where: workers that give a lane up, addresses that nobody serves. Pure.

A worker that stops listening while it lives is replaced first: it stays the serving
one of its slot until its successor is ready, and that gets the queue of its lane.

`hold`: an address whose workers are all dead or deaf still takes connections, into
the lanes that wait for an heir. After a while it must not, or health checks would
take it for alive.

Invariant: an address is held only while a slot's worker that listened there has no
successor yet, and no serving worker listens there.
"""

from __future__ import annotations

from collections.abc import Callable

from .commands import Hold
from .members import Member
from .options import Options
from .reloading import Reloading
from .slots import LANE_GRACE


class Attendance(Reloading):
    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        super().__init__(options, random)
        self._deserted: dict[str, float] = {}  # address -> since when
        self._held: set[str] = set()

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
            self._tell("deaf", worker, address=address)
            # One of several processes may have ended; its like comes soon.
            self._replace_leaving(now, LANE_GRACE if partly else 0.0)
        elif slot.previous is member and address in member.closed:
            slot.previous = None  # nothing to go back to
            self._retire([member], now)
        self._advance(now)

    def _attends(self, member: Member, address: str, now: float) -> None:
        member.addresses.add(address)
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

    def _replace_leaving(self, now: float, pause: float = 0.0) -> None:
        for slot in self._wanted():
            member, reload = slot.serving, self.reloading
            if not member or not self._leaves(member) or slot.incoming or self.closing:
                continue
            if reload is None and slot.spawn_at is None:
                slot.spawn_at = max(self._replace_at(member, now), now + pause)
            elif reload and self.options.surge and slot.index not in reload.todo:
                reload.todo.append(slot.index)

    # ---- hold --------------------------------------------------------------------

    def _attend(self, now: float) -> None:
        hold = self.options.hold
        if not hold or self.closing:
            return
        served, lost = self._addresses()
        for address in [one for one in self._deserted if one in served or one not in lost]:
            since = self._deserted.pop(address)
            if address in self._held:
                self._held.discard(address)
                self._do(Hold(address, False))
                if address in served:
                    self._tell("hold", address=address, held=False, seconds=now - since)
        for address in sorted(lost - served):
            since = self._deserted.setdefault(address, now)
            if address not in self._held and now >= since + hold:
                self._held.add(address)
                self._do(Hold(address, True))
                self._tell("hold", address=address, held=True, seconds=now - since)

    def _addresses(self) -> tuple[set[str], set[str]]:
        """Those where a serving worker listens, and those where one did that has
        no successor yet. (What only a draining generation has is neither.)"""
        served: set[str] = set()
        lost: set[str] = set()
        for slot in self.slots.values():
            if slot.serving:
                served |= slot.serving.addresses
                lost |= slot.serving.closed
            for member in slot.chain:
                lost |= member.addresses | member.closed
        return served, lost

    def _hold_at(self) -> float | None:
        if not self.options.hold or self.closing:
            return None
        times = [at for address, at in self._deserted.items() if address not in self._held]
        return min(times) + self.options.hold if times else None
