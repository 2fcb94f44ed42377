"""The life of one worker: a table of state x event. Pure.

Every pair is in the table. An event that means nothing in a state is listed
with the state itself and no act, so that nothing is forgotten by omission.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What a worker is; the value is what `status` and events call it."""

    STARTING = "starting"  # runs, not ready; no connection is steered to it
    READY = "ready"  # ready, waits to be made live (a reload's cutover)
    SERVING = "serving"  # live: steering may choose its lanes
    SETTLING = "settling"  # retired: takes what was already on its way to it
    DRAINING = "draining"  # takes nothing more; answers what it has
    STOPPING = "stopping"  # was sent the stop signal
    ABORTED = "aborted"  # hung, was sent SIGABRT
    KILLED = "killed"  # was sent SIGKILL
    DEAD = "dead"  # its leader is reaped; others of its group may still end
    GONE = "gone"  # nothing of it runs any more


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
    (_S.STARTING, _E.PROMOTE): (_S.STARTING, _A.NONE),
    (_S.STARTING, _E.DEMOTE): (_S.STARTING, _A.NONE),
    (_S.STARTING, _E.RETIRE): (_S.STOPPING, _A.LEAVE),
    (_S.STARTING, _E.SETTLED): (_S.STARTING, _A.NONE),
    (_S.STARTING, _E.FINISHED): (_S.STARTING, _A.NONE),
    (_S.STARTING, _E.HURRY): (_S.STARTING, _A.NONE),
    (_S.STARTING, _E.OVERDUE): (_S.STOPPING, _A.LEAVE),
    (_S.STARTING, _E.HANG): (_S.STARTING, _A.NONE),
    (_S.STARTING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.STARTING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.STARTING, _E.GONE): (_S.STARTING, _A.NONE),
    (_S.READY, _E.READY): (_S.READY, _A.NONE),
    (_S.READY, _E.PROMOTE): (_S.SERVING, _A.NONE),
    (_S.READY, _E.DEMOTE): (_S.READY, _A.NONE),
    (_S.READY, _E.RETIRE): (_S.SETTLING, _A.SETTLE),
    (_S.READY, _E.SETTLED): (_S.READY, _A.NONE),
    (_S.READY, _E.FINISHED): (_S.READY, _A.NONE),
    (_S.READY, _E.HURRY): (_S.READY, _A.NONE),
    (_S.READY, _E.OVERDUE): (_S.STOPPING, _A.LEAVE),
    (_S.READY, _E.HANG): (_S.READY, _A.NONE),
    (_S.READY, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.READY, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.READY, _E.GONE): (_S.READY, _A.NONE),
    (_S.SERVING, _E.READY): (_S.SERVING, _A.NONE),
    (_S.SERVING, _E.PROMOTE): (_S.SERVING, _A.NONE),
    (_S.SERVING, _E.DEMOTE): (_S.READY, _A.NONE),
    (_S.SERVING, _E.RETIRE): (_S.SETTLING, _A.SETTLE),
    (_S.SERVING, _E.SETTLED): (_S.SERVING, _A.NONE),
    (_S.SERVING, _E.FINISHED): (_S.SERVING, _A.NONE),
    (_S.SERVING, _E.HURRY): (_S.SERVING, _A.NONE),
    (_S.SERVING, _E.OVERDUE): (_S.SERVING, _A.NONE),
    (_S.SERVING, _E.HANG): (_S.ABORTED, _A.ABORT),
    (_S.SERVING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.SERVING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.SERVING, _E.GONE): (_S.SERVING, _A.NONE),
    (_S.SETTLING, _E.READY): (_S.SETTLING, _A.NONE),
    (_S.SETTLING, _E.PROMOTE): (_S.SETTLING, _A.NONE),
    (_S.SETTLING, _E.DEMOTE): (_S.SETTLING, _A.NONE),
    (_S.SETTLING, _E.RETIRE): (_S.SETTLING, _A.NONE),
    (_S.SETTLING, _E.SETTLED): (_S.DRAINING, _A.DRAIN),
    (_S.SETTLING, _E.FINISHED): (_S.SETTLING, _A.NONE),
    (_S.SETTLING, _E.HURRY): (_S.STOPPING, _A.LEAVE),
    (_S.SETTLING, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.SETTLING, _E.HANG): (_S.SETTLING, _A.NONE),
    (_S.SETTLING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.SETTLING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.SETTLING, _E.GONE): (_S.SETTLING, _A.NONE),
    (_S.DRAINING, _E.READY): (_S.DRAINING, _A.NONE),
    (_S.DRAINING, _E.PROMOTE): (_S.DRAINING, _A.NONE),
    (_S.DRAINING, _E.DEMOTE): (_S.DRAINING, _A.NONE),
    (_S.DRAINING, _E.RETIRE): (_S.DRAINING, _A.NONE),
    (_S.DRAINING, _E.SETTLED): (_S.DRAINING, _A.NONE),
    (_S.DRAINING, _E.FINISHED): (_S.STOPPING, _A.LEAVE),
    (_S.DRAINING, _E.HURRY): (_S.STOPPING, _A.LEAVE),
    (_S.DRAINING, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.DRAINING, _E.HANG): (_S.DRAINING, _A.NONE),
    (_S.DRAINING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.DRAINING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.DRAINING, _E.GONE): (_S.DRAINING, _A.NONE),
    (_S.STOPPING, _E.READY): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.PROMOTE): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.DEMOTE): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.RETIRE): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.SETTLED): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.FINISHED): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.HURRY): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.STOPPING, _E.HANG): (_S.STOPPING, _A.NONE),
    (_S.STOPPING, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.STOPPING, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.STOPPING, _E.GONE): (_S.STOPPING, _A.NONE),
    (_S.ABORTED, _E.READY): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.PROMOTE): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.DEMOTE): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.RETIRE): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.SETTLED): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.FINISHED): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.HURRY): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.OVERDUE): (_S.KILLED, _A.KILL),
    (_S.ABORTED, _E.HANG): (_S.ABORTED, _A.NONE),
    (_S.ABORTED, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.ABORTED, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.ABORTED, _E.GONE): (_S.ABORTED, _A.NONE),
    (_S.KILLED, _E.READY): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.PROMOTE): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.DEMOTE): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.RETIRE): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.SETTLED): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.FINISHED): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.HURRY): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.OVERDUE): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.HANG): (_S.KILLED, _A.NONE),
    (_S.KILLED, _E.KILL): (_S.KILLED, _A.KILL),
    (_S.KILLED, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.KILLED, _E.GONE): (_S.KILLED, _A.NONE),
    (_S.DEAD, _E.READY): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.PROMOTE): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.DEMOTE): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.RETIRE): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.SETTLED): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.FINISHED): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.HURRY): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.OVERDUE): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.HANG): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.KILL): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.EXIT): (_S.DEAD, _A.NONE),
    (_S.DEAD, _E.GONE): (_S.GONE, _A.NONE),
    (_S.GONE, _E.READY): (_S.GONE, _A.NONE),
    (_S.GONE, _E.PROMOTE): (_S.GONE, _A.NONE),
    (_S.GONE, _E.DEMOTE): (_S.GONE, _A.NONE),
    (_S.GONE, _E.RETIRE): (_S.GONE, _A.NONE),
    (_S.GONE, _E.SETTLED): (_S.GONE, _A.NONE),
    (_S.GONE, _E.FINISHED): (_S.GONE, _A.NONE),
    (_S.GONE, _E.HURRY): (_S.GONE, _A.NONE),
    (_S.GONE, _E.OVERDUE): (_S.GONE, _A.NONE),
    (_S.GONE, _E.HANG): (_S.GONE, _A.NONE),
    (_S.GONE, _E.KILL): (_S.GONE, _A.NONE),
    (_S.GONE, _E.EXIT): (_S.GONE, _A.NONE),
    (_S.GONE, _E.GONE): (_S.GONE, _A.NONE),
}

RETIRED = frozenset({State.SETTLING, State.DRAINING, State.STOPPING, State.KILLED})
ENDED = frozenset({State.DEAD, State.GONE})


def step(state: State, event: Event) -> tuple[State, Act]:
    """The next state, and what has to be done."""
    return TABLE[state, event]
