"""When a worker is ready: by `ready_when`, and by what it answers to `ready_url`. Pure.

Invariant: a worker is ready once, and is told of when it gets connections, where it does so
at once.
"""

from __future__ import annotations

from .. import events
from ..base.states import State
from .commands import Ask, Audit
from .failing import Failing
from .lifecycle import Event
from .members import Member
from .slots import LANE_GRACE

ANSWER_WITHIN = 5.0  # seconds for one answer to `ready_url`,
ASK_EVERY = 0.2  # and from one that was no to the next question


class Readiness(Failing):
    def accepting(self, worker: int, now: float) -> None:
        """Somebody has taken a connection from each of its lanes."""
        member = self.members[worker]
        member.proving = False
        if self.options.ready_url and member.state is State.STARTING:
            self._ask(member, now)
        elif self.options.ready_when == "accepting":
            self.ready(worker, now)
        self._advance(now)

    def _ask(self, member: Member, now: float) -> None:
        member.ask_at = now + ANSWER_WITHIN
        self.do(Ask(member.id))

    def answered(self, worker: int, refusal: str | None, now: float) -> None:
        """To `ready_url`; None: it is ready, else what it said."""
        member = self.members.get(worker)
        if member is None or member.state is not State.STARTING:
            return
        member.refusal, member.ask_at = refusal, None
        if refusal is None:
            self.ready(worker, now)
        else:
            member.ask_at = now + ASK_EVERY

    def _ask_again(self, member: Member, now: float) -> None:
        """If it is time."""
        if member.ask_at is None or now < member.ask_at:
            return
        member.ask_at = None
        if member.state is State.STARTING:
            member.refusal = member.refusal or f"nothing within {ANSWER_WITHIN:g} s"
            self._ask(member, now)

    def said_ready(self, worker: int, now: float) -> None:
        if self.options.ready_when == "ready":
            self.ready(worker, now)

    def ready(self, worker: int, now: float) -> None:
        member = self.members[worker]
        if member.state is not State.STARTING:
            return
        self._event(member, Event.READY, now)
        member.ready_at = now
        self._longest_boot = max(self._longest_boot or 0.0, now - member.born)
        self._proven += 1
        member.failures_before, self._failures = self._failures, 0
        in_reload, seconds = self.reloading is not None, now - member.born
        if in_reload:  # whose end comes after it
            self._tell(events.Ready(seconds), worker)
        if not self._fits(member, now):
            member.look_at = now + LANE_GRACE
        if member.relief:
            self._release_heirs_of(member)
            self._retire([member], now)
        self._advance(now)
        if not in_reload:  # who hears it finds that it gets connections
            self._tell(events.Ready(seconds), worker)
        self.do(Audit(worker))  # when it is live: a look at all of its processes takes a while
