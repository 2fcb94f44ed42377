"""When a retired worker has settled, and when it may be told to stop. Pure.

What can be known from outside is known by the kernel (csrc/facts.c); a server
that catches the stop signal knows its requests better, so it is asked early. It
cannot be seen that a body still follows headers that were sent, or that a quiet
stream is not over.
"""

from __future__ import annotations

from dataclasses import dataclass

from .members import Member
from .options import Options

HALF_OPEN_PATIENCE = 10.0  # seconds: SYN-ACKs are repeated after 1, 3 and 7


@dataclass(frozen=True)
class Facts:
    """About one worker, now.

    `queued`: connections that wait to be accepted, and `stranded` of them where it,
    alive, no longer listens; `half_open`: handshakes of
    before its retirement; `connections`: accepted and open, -1 if not counted
    yet, None if it cannot be known here; `owing`: those of them that owe an
    answer; `quiet`: seconds since a byte moved on any; `catches_stop`: whether
    it has a handler for the stop signal.
    """

    queued: int = 0
    half_open: int = 0
    connections: int | None = None
    owing: int = 0
    quiet: float = 0.0
    catches_stop: bool = False
    stranded: int = 0


def settled(member: Member, facts: Facts, now: float) -> bool:
    """Nothing more will come to it."""
    if facts.queued or now < member.settle_until:
        return False
    return not facts.half_open or now >= member.retired_at + HALF_OPEN_PATIENCE


def finished(member: Member, facts: Facts, options: Options, now: float) -> bool:
    """It may be sent the stop signal."""
    drained_for = now - member.draining_since
    if facts.catches_stop:
        return facts.connections is None or facts.owing == 0 or drained_for >= options.drain_owes
    if options.drain_quiet is None:  # not before `timeout`
        return facts.connections == 0
    if facts.connections is None:
        return drained_for >= options.drain_quiet
    if facts.connections <= 0:
        return facts.connections == 0
    return facts.owing == 0 and facts.quiet >= options.drain_quiet
