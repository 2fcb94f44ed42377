"""In the place of a master before, in the same process: what it has left is taken over.

Owns the order. The engine's part comes before anything is spawned, the rest when all parts of the
master are there. Signals are blocked since the last moment of the one before: they are taken when
there is somebody to take them.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from .. import events
from ..base.states import State
from ..population import carried
from ..population.view import Worker
from ..start.inherit import Given
from .heritage import Heritage

if TYPE_CHECKING:
    from ..cluster import Cluster


def given(cluster: Cluster, left: Heritage) -> Given:
    """Workers and lanes, which the engine has from now on. Raises OSError."""
    cluster._alive().resume(left["engine"])
    return Given(set(left["population"]["offered"]), tuple(left["unneeded"]))


def go_on(cluster: Cluster, left: Heritage) -> None:
    """Raises OSError, or carried.Unknown."""
    from .. import __version__

    people = cluster._population
    carried.resume(people, left["population"])
    pids = dict(left["pids"])
    for key, member in people.members.items():
        cluster._workers[key] = Worker(
            key, member.slot, member.generation, pids[key], State.SERVING.value, ready=True
        )
    cluster._measuring.tally.resume(left["tally"])
    if cluster._pipes:
        cluster._pipes.resume(left["pipes"])
    if cluster._log.recent:
        cluster._log.recent.resume(left["recent"])
    if cluster._unit:
        cluster._unit.resume(left["stored"])
    cluster._work()  # lanes are steered to by this master's program from here on
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    cluster._alive().reap()  # the trial: a SIGCHLD of before is lost where its action is set anew
    done = events.Upgraded(left["version"], __version__, time.monotonic() - left["began"])
    cluster._publisher.tell(done)
    if cluster._control:
        cluster._control.upgraded({"ok": True, **done.details})
