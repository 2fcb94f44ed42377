"""Commands of the population, carried out on the engine.

Owns what the kernel has refused and is tried again with the next `Live`: a release
for which there was no memory. Spawn, Notice and Ended are the cluster's own.
"""

from __future__ import annotations

import contextlib
import signal

from . import _engine, commands
from .draining import Facts
from .options import Options
from .population import Population
from .signals import catches
from .story import Story
from .view import Worker


class Executor:
    """`workers`: those the cluster knows; a released one leaves it."""

    def __init__(
        self,
        engine: _engine.Engine,
        population: Population,
        workers: dict[int, Worker],
        options: Options,
        story: Story,
    ) -> None:
        self._engine = engine
        self._population = population
        self._workers = workers
        self._options = options
        self._story = story
        self._unreleased: set[int] = set()

    def carry_out(self, command: commands.Command, now: float) -> None:
        engine = self._engine
        if isinstance(command, commands.Live):
            self._steer(command, now)
        elif isinstance(command, commands.Retired):
            with contextlib.suppress(OSError):  # a sandbox without sock_diag: less is known
                engine.drain_begin(command.workers)
        elif isinstance(command, commands.Disconnect):
            engine.send(command.worker, b'{"cmd": "disconnect"}')
        elif isinstance(command, commands.Leave):
            engine.signal(command.worker, self._options.stop_signal)
        elif isinstance(command, commands.Abort):
            engine.signal(command.worker, signal.SIGABRT)
        elif isinstance(command, commands.Kill):
            engine.kill(command.worker)
        elif isinstance(command, commands.Inspect):
            self._population.inspected(command.worker, self._facts(command.worker), now)
        elif isinstance(command, commands.Release):
            self._release(command.worker, now)
        elif isinstance(command, commands.CloseLanes):
            engine.close_lanes()
        elif isinstance(command, commands.FindDeaf):
            engine.deaf(command.worker)
        elif isinstance(command, commands.Hold):
            try:
                engine.hold(command.address.encode(), command.on)
            except OSError:
                self._population.steering_failed(now)

    def _steer(self, command: commands.Live, now: float) -> None:
        try:
            self._engine.steer(command.workers, command.weights)
            self._story.over("steer")
        except OSError as error:
            self._story.once("steer", f"cannot steer: {error.strerror}; retrying")
            self._population.steering_failed(now)
        for key in list(self._unreleased):
            self._release(key, now)

    def _release(self, key: int, now: float) -> None:
        """Its lanes leave their groups; without memory for the programs that this
        takes, with the next `Live`."""
        self._unreleased.discard(key)
        try:
            self._engine.release(key)
        except OSError:
            self._unreleased.add(key)
            self._population.steering_failed(now)
            return
        self._workers.pop(key, None)

    def _facts(self, key: int) -> Facts:
        engine, worker = self._engine, self._workers.get(key)
        stoppable = worker is not None and catches(worker.pid, self._options.stop_signal)
        try:
            connections, owing, quiet, half_open, queued = engine.drain_look(key)
        except OSError:
            queued = engine.queued(key)
            stranded = engine.deaf(key) if queued else 0
            return Facts(queued, catches_stop=stoppable, stranded=stranded)
        stranded = engine.deaf(key) if queued else 0
        return Facts(queued, half_open, connections, owing, quiet, stoppable, stranded)
