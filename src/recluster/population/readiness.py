"""When a worker is ready: by `ready_when`, and by what it answers to `ready_url`. Pure.

Invariant: a worker is ready once, and is told of when it gets connections, where it does so
at once.
"""

from __future__ import annotations

from .. import events
from ..base.states import State
from .advancing import advance
from .commands import Ask, Audit
from .lifecycle import Event
from .members import Member
from .slots import LANE_GRACE, fits, pass_on, release_heirs_of, retire
from .state import Population

ANSWER_WITHIN = 5.0  # seconds for one answer to `ready_url`,
ASK_EVERY = 0.2  # and from one that was no to the next question


def accepting(people: Population, worker: int, now: float) -> None:
    """Somebody has taken a connection from each of its lanes."""
    member = people.members[worker]
    member.proving = False
    if people.options.ready_url and member.state is State.STARTING:
        _ask(people, member, now)
    elif people.options.ready_when == "accepting":
        ready(people, worker, now)
    advance(people, now)


def _ask(people: Population, member: Member, now: float) -> None:
    member.ask_at = now + ANSWER_WITHIN
    people.do(Ask(member.id))


def answered(people: Population, worker: int, refusal: str | None, now: float) -> None:
    """To `ready_url`; None: it is ready, else what it said."""
    member = people.members.get(worker)
    if member is None or member.state is not State.STARTING:
        return
    member.refusal, member.ask_at = refusal, None
    if refusal is None:
        ready(people, worker, now)
    else:
        member.ask_at = now + ASK_EVERY


def ask_again(people: Population, member: Member, now: float) -> None:
    """If it is time."""
    if member.ask_at is None or now < member.ask_at:
        return
    member.ask_at = None
    if member.state is State.STARTING:
        member.refusal = member.refusal or f"nothing within {ANSWER_WITHIN:g} s"
        _ask(people, member, now)


def said_ready(people: Population, worker: int, now: float) -> None:
    if people.options.ready_when == "ready":
        ready(people, worker, now)


def ready(people: Population, worker: int, now: float) -> None:
    member = people.members[worker]
    if member.state is not State.STARTING:
        return
    pass_on(people, member, Event.READY, now)
    member.ready_at = now
    people.longest_boot = max(people.longest_boot or 0.0, now - member.born)
    people.proven += 1
    member.failures_before, people.failures = people.failures, 0
    in_reload, seconds = people.reloading is not None, now - member.born
    if in_reload:  # whose end comes after it
        people.tell(events.Ready(seconds), worker)
    if not fits(people, member, now):
        member.look_at = now + LANE_GRACE
    if member.relief:
        release_heirs_of(people, member)
        retire(people, [member], now)
    advance(people, now)
    if not in_reload:  # who hears it finds that it gets connections
        people.tell(events.Ready(seconds), worker)
    people.do(Audit(worker))  # when it is live: a look at all of its processes takes a while
