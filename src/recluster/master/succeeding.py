"""In the place of a master before, in the same process: what it has left is taken over.

Owns the order. The engine's part comes before anything is spawned, the rest when all parts of the
master are there. Signals are blocked since the last moment of the one before: they are taken when
there is somebody to take them.
"""

from __future__ import annotations

import signal
import time

from .. import events
from ..base.states import State
from ..events.view import Worker
from ..population import carried
from ..start.inherit import Given
from .heritage import Heritage
from .supervisor import Supervisor


def given(core: Supervisor, left: Heritage) -> Given:
    """Workers and lanes, which the engine has from now on. Raises OSError."""
    core.alive().resume(left["engine"])
    return Given(set(left["population"]["offered"]), tuple(left["unneeded"]))


def go_on(core: Supervisor, left: Heritage) -> None:
    """Raises OSError, or carried.Unknown."""
    from .. import __version__

    people = core.population
    carried.resume(people, left["population"])
    pids = dict(left["pids"])
    for key, member in people.members.items():
        core.workers[key] = Worker(
            key, member.slot, member.generation, pids[key], State.SERVING.value, ready=True
        )
    core.tally.resume(left["tally"])
    if core.pipes:
        core.pipes.resume(left["pipes"])
    if core.recent:
        core.recent.resume(left["recent"])
    if core.unit:
        core.unit.resume(left["stored"])
    core.work()  # lanes are steered to by this master's program from here on
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    core.alive().reap()  # the trial: a SIGCHLD of before is lost where its action is set anew
    done = events.Upgraded(left["version"], __version__, time.monotonic() - left["began"])
    core.publisher.tell(done)
    if core.control:
        core.control.upgraded({"ok": True, **done.details})
