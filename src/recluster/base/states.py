"""What a worker can be, in one word each. How it comes from one to the next, `lifecycle` says."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What a worker is; the value is what `status` and events call it."""

    __hash__ = object.__hash__  # Enum's own is a function in Python

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
