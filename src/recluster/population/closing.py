"""The end: all workers drain, or are killed, and nobody comes after them. Pure.

Owns how long who is left has, and what is told of those that are waited for. Invariant: once it
has begun nothing is spawned but who takes what waits in a dead worker's queue.
"""

from __future__ import annotations

from .. import events
from ..base.states import State
from . import slots
from .background import end_strays
from .commands import CloseLanes, Inspect, Leave
from .cutover import abandon_reload, baked, tell_reload
from .lifecycle import ENDED, Event
from .state import Population

GONE_GRACE = 5.0  # at the end: how long strays of a dead worker are waited for
WAITING_FIRST = 2.0  # seconds from the beginning of a shutdown to the line that says what
WAITING_EVERY = 10.0  # is waited for, and to the next such line
LEAVING = frozenset({State.SETTLING, State.DRAINING, State.STOPPING, State.ABORTED})


def shutdown(people: Population, now: float, code: int = 0, again: bool = False) -> None:
    """After `shutdown_delay`, drain all workers; then end with that exit code.
    `again`: workers that have had the stop signal get it once more."""
    if people.closing and again and not people.killing:
        for member in people.members.values():
            if member.state is State.STOPPING:
                people.do(Leave(member.id))
    if people.closing or people.close_at is not None:
        return
    if people.reloading:
        abandon_reload(people, "the cluster is shutting down", now)
    delay = 0.0 if people.killing or code else people.options.shutdown_delay
    if delay:
        people.close_at = now + delay
    else:
        close(people, now, code)


def close(people: Population, now: float, code: int) -> None:
    if people.reloading:  # begun during `shutdown_delay`
        abandon_reload(people, "the cluster is shutting down", now)
    leaving = []
    if people.baking and people.baking.canary:
        undecided, people.baking = people.baking, None
        leaving = [slot.previous for slot in people.slots.values() if slot.previous]
        for slot in people.slots.values():
            slot.previous = None
        tell_reload(people, undecided, False, "the cluster is shutting down", now)
    elif people.baking:
        baked(people, now)
    people.close_at = None
    people.closing = True
    people.code = code
    people.do(CloseLanes())
    for slot in people.slots.values():
        slot.wanted, slot.spawn_at = False, None
        slots.drop_coming(people, slot, now)
        if slot.serving:
            leaving.append(slot.serving)
        slot.serving = None
    urge(people)
    slots.retire(people, leaving, now)
    limit_shutdown(people, now)
    for slot in people.slots.values():
        slots.settle_chain(people, slot)
    for member in people.members.values():
        if member.state is State.DEAD:
            member.deadline = now + GONE_GRACE
            if member.strays:
                end_strays(people, member, now, kill=True)
    slots.finish_if_empty(people)


def limit_shutdown(people: Population, now: float) -> None:
    """Whoever is left has `shutdown_timeout`, however long it had before."""
    end = now + people.options.shutdown_timeout
    for member in people.members.values():
        if member.state in LEAVING:
            latest = max(end, member.settle_until)
            member.deadline = min(member.deadline or latest, latest)
    people.close_by = end
    people.urge_at = now + people.options.shutdown_timeout / 2
    people.waiting_at = now + WAITING_FIRST


def urge(people: Population) -> None:
    """Some servers want the stop signal twice, and one may have come before the handler
    was there. But a second one makes others (aiohttp) drop what they are answering:
    whoever still owes an answer does not get it."""
    for member in people.members.values():
        if member.state is State.STOPPING and not people.killing:
            member.urged = True
            people.do(Inspect(member.id))


def tell_what_is_waited_for(people: Population, now: float) -> None:
    waited_for = [one for one in people.members.values() if one.state not in ENDED]
    for member in waited_for:
        people.do(Inspect(member.id))
    if waited_for:
        people.tell(events.Waiting(max(0.0, people.close_by - now)))


def terminate(people: Population, now: float) -> None:
    """Kill everything at once."""
    people.killing = True
    if people.reloading:
        abandon_reload(people, "the cluster was terminated", now)
    if not people.closing:
        close(people, now, 0)
    for member in list(people.members.values()):
        slots.pass_on(people, member, Event.KILL, now)
    slots.finish_if_empty(people)
