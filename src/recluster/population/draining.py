"""When a retired worker has settled, and when it may be told to stop. Pure.

What can be known from outside is known by the kernel (csrc/drain/facts.c); a server
that catches the stop signal knows its requests better, so it is asked early. It
cannot be seen that a body still follows headers that were sent, or that a quiet
stream is not over.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Options
from .members import Member

HALF_OPEN_PATIENCE = 10.0  # seconds: SYN-ACKs are repeated after 1, 3 and 7
READING_GRACE = 0.05  # seconds, to read the disconnect;
HEARD_GRACE = 1.0  # for who has read the disconnect, to act upon it,
MOVE_GRACE = 0.5  # and where nobody loses anything when it does not come to that
MOVE_AGAIN = 2.0  # seconds until what could not be moved is tried again; then twice as long,
MOVE_SLOWEST = 32.0


@dataclass(frozen=True)
class Facts:
    """About one worker, now.

    `queued`: connections that wait to be accepted, and `stranded` of them where it,
    alive, no longer listens; `handed`: siblings take all of those; `half_open`:
    handshakes of before its retirement; `connections`: accepted and open, -1 if not
    counted yet, None if it cannot be known here; `owing`: those of them that owe an
    answer; `quiet`: seconds since a byte moved on any; `catches_stop`: whether it
    has a handler for the stop signal, and `always_catches` that this says nothing
    (Node has one of its own); `heard`: it has read what was sent on its channel;
    `told`: the engine has sent it the stop signal (Move).
    """

    queued: int = 0
    half_open: int = 0
    connections: int | None = None
    owing: int = 0
    quiet: float = 0.0
    catches_stop: bool = False
    always_catches: bool = False
    heard: bool = False
    stranded: int = 0
    handed: bool = False
    told: bool = False


def may_get_more(facts: Facts) -> bool:
    """A connection may come out of its queue, or into it, though it is retired."""
    return facts.queued > 0 or facts.half_open > 0 or facts.connections is None


def settled(member: Member, facts: Facts, now: float) -> bool:
    """Nothing more will come to it."""
    if facts.queued or now < member.settle_until:
        return False
    return not facts.half_open or now >= member.retired_at + HALF_OPEN_PATIENCE


def finished(
    member: Member, facts: Facts, options: Options, dies_of_stop: bool | None, now: float
) -> bool:
    """It may be sent the stop signal. `dies_of_stop`: what was seen of its like."""
    drained_for = now - member.draining_since
    if drained_for < _grace(facts):
        return False
    if member.spoken:  # it knows what to do, and ends by itself
        return member.listened and facts.connections == 0
    if not member.listened:
        return options.drain_quiet is not None and drained_for >= options.drain_quiet
    quiet = _is_quiet(facts, options, drained_for)
    if _finishes_by_itself(facts, dies_of_stop):
        answered = facts.connections is None or facts.owing == 0
        in_time = answered or drained_for >= options.drain_owes
        return in_time and (quiet or "drain_quiet" not in options.given)
    return quiet and (facts.connections is None or facts.owing == 0)


def may_move(
    member: Member, facts: Facts, options: Options, dies_of_stop: bool | None, now: float
) -> float | None:
    """Whether its connections may go to others while they are busy: then, how long one must have
    been quiet of which it cannot be seen whether its answer is whole, in seconds. A server that
    finishes by itself knows that. Who says something of its own ends by itself, and a user who
    wants no end before `timeout` gets none."""
    if options.handover == "off" or options.drain_quiet is None:
        return None
    if member.spoken or not member.listened or not facts.connections:
        return None
    if now < member.move_at or now - member.draining_since < min(_grace(facts), MOVE_GRACE):
        return None
    knows = _finishes_by_itself(facts, dies_of_stop) and "drain_quiet" not in options.given
    return 0.0 if knows else options.drain_quiet


def move_again(member: Member, now: float) -> float:
    """When that is due if it cannot be done now: each time clients are held for a moment."""
    return now + min(MOVE_AGAIN * 2.0**member.moves, MOVE_SLOWEST)


def _grace(facts: Facts) -> float:
    """What a worker may do upon the disconnect before anything else is asked of it. Node
    always reads its channel; of others it shows once they have."""
    return HEARD_GRACE if facts.heard or facts.always_catches else READING_GRACE


def _finishes_by_itself(facts: Facts, dies_of_stop: bool | None) -> bool:
    """At the stop signal it finishes what it has. A handler may only end it, which shows
    when one has died of it at once; of a runtime that always has one, nothing is believed
    until one has been seen to finish."""
    if facts.always_catches and dies_of_stop is None:
        return False
    return facts.catches_stop and not dies_of_stop


def _is_quiet(facts: Facts, options: Options, drained_for: float) -> bool:
    if facts.connections == 0:
        return True
    if options.drain_quiet is None:  # not before `timeout`
        return False
    if facts.connections is None:
        return drained_for >= options.drain_quiet
    return facts.connections > 0 and facts.quiet >= options.drain_quiet
