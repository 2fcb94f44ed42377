"""The life of one worker: a table of the transitions that do something. Pure.

A pair of state and event that is not in it means nothing: what is late, or comes twice.
"""

from __future__ import annotations

from enum import Enum

from ..base.states import State


class Event(Enum):
    READY = "ready"  # it met `ready_when`
    PROMOTE = "promote"  # make it live
    RETIRE = "retire"  # stop steering to it
    DEMOTE = "demote"  # not live for now, but to be kept (a new generation bakes)
    SETTLED = "settled"  # nothing more will come to it
    FINISHED = "finished"  # its connections are answered, as far as one can know
    HURRY = "hurry"  # others need its place: let it stop now
    OVERDUE = "overdue"  # the deadline of its state has passed
    HANG = "hang"  # it has hung for too long
    KILL = "kill"  # end it at once
    EXIT = "exit"  # its leader was reaped
    GONE = "gone"  # its last process ended


class Act(Enum):
    NONE = "none"
    SETTLE = "settle"  # watch its queue until it is empty
    DRAIN = "drain"  # say disconnect, watch its connections
    LEAVE = "leave"  # send the stop signal
    ABORT = "abort"  # send SIGABRT: its stack is wanted
    KILL = "kill"  # SIGKILL to its process group


_S, _E, _A = State, Event, Act

TABLE: dict[tuple[State, Event], tuple[State, Act]] = {
    (_S.STARTING, _E.READY): (_S.READY, _A.NONE),
    (_S.STARTING, _E.RETIRE): (_S.STOPPING, _A.LEAVE),
    (_S.STARTING, _E.OVERDUE): (_S.STOPPING, _A.LEAVE),
    (_S.STARTING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.STARTING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.READY, _E.PROMOTE): (_S.SERVING, _A.NONE),
    (_S.READY, _E.RETIRE): (_S.SETTLING, _A.SETTLE),
    (_S.READY, _E.OVERDUE): (_S.STOPPING, _A.LEAVE),
    (_S.READY, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.READY, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.SERVING, _E.DEMOTE): (_S.READY, _A.NONE),
    (_S.SERVING, _E.RETIRE): (_S.SETTLING, _A.SETTLE),
    (_S.SERVING, _E.HANG): (_S.ABORTED, _A.ABORT),
    (_S.SERVING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.SERVING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.SETTLING, _E.SETTLED): (_S.DRAINING, _A.DRAIN),
    (_S.SETTLING, _E.HURRY): (_S.STOPPING, _A.LEAVE),
    (_S.SETTLING, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.SETTLING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.SETTLING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.DRAINING, _E.FINISHED): (_S.STOPPING, _A.LEAVE),
    (_S.DRAINING, _E.HURRY): (_S.STOPPING, _A.LEAVE),
    (_S.DRAINING, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.DRAINING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.DRAINING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.STOPPING, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.STOPPING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.STOPPING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.ABORTED, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.ABORTED, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.ABORTED, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.KILLED, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.KILLED, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.GONE): (_S.GONE, _A.NONE),
}

RETIRED = frozenset({State.SETTLING, State.DRAINING, State.STOPPING, State.KILLED})
ENDED = frozenset({State.DEAD, State.GONE})


def step(state: State, event: Event) -> tuple[State, Act]:
    """The next state, and what has to be done."""
    return TABLE.get((state, event), (state, Act.NONE))
