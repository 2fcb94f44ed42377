"""What one can ask of a running cluster, and say to its workers.

The part of the API that only hands a wish to the population, and says why not: for the user, the
control socket and the signals.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..base.levels import ERROR
from ..base.text import line_of
from ..events.view import Worker
from ..host.handle import ReloadHandle
from ..options.checks import OptionError, canary_part, weights_of, worker_count
from ..population import closing, reloading, sizing
from .settings import Read
from .supervisor import Supervisor


class Wishes:
    """Of `core`, whose owner alone may ask."""

    def __init__(self, core: Supervisor) -> None:
        self._core = core

    def workers(self) -> list[Worker]:
        """All, including not yet ready and retiring ones, by slot and age."""
        self._core.running()
        alive = [worker for worker in self._core.workers.values() if worker.alive]
        return sorted(alive, key=lambda worker: (worker.id, worker.key))

    def active_workers(self) -> dict[int, Worker | None]:
        """Slot -> the ready worker that serves there, or None."""
        self._core.running()
        active: dict[int, Worker | None] = {}
        for index, slot in sorted(self._core.population.slots.items()):
            if slot.wanted:
                active[index] = self._core.workers[slot.serving.id] if slot.serving else None
        return active

    def signal(self, worker: Worker, number: int) -> bool:
        """Send a signal to the worker's process. False if it is gone. Raises ValueError
        for a number that is no signal's."""
        engine = self._core.running()
        if number not in signal.valid_signals():
            raise ValueError(f"signal: {number!r} is not the number of a signal")
        return engine is not None and worker.alive and engine.signal(worker.key, number)

    def send(self, worker: Worker, message: Any) -> bool:
        """Queue a message for the worker. False if its channel is closed, or full
        because it does not read. Raises TypeError or ValueError for what JSON cannot
        say (NaN, for one), and for more than a line may have (1 MiB)."""
        engine = self._core.running()
        line = line_of(message)
        return engine is not None and worker.alive and engine.send(worker.key, line)

    def broadcast(self, message: Any) -> int:
        """`send` to all workers; returns to how many it could be queued."""
        return sum(self.send(worker, message) for worker in self.workers())

    @property
    def metrics_address(self) -> str | None:
        """Where --metrics is answered, once it runs: with port 0, at which one."""
        return self._core.metrics_address

    @property
    def closing(self) -> bool:
        """Whether a shutdown is under way."""
        return self._core.population.closing

    def size(self) -> int:
        """How many slots are wanted: what `scale` was last told, or `workers`."""
        self._core.running()
        return self._core.population.size

    def reload(
        self,
        callback: Callable[[ReloadHandle], object] | None = None,
        *,
        canary: float | None = None,
    ) -> ReloadHandle:
        """Replace all workers by new ones of a new generation.

        Returns at once. New connections go to the new workers from one instant
        on, when all are ready; if one fails, nothing changes. `callback` gets
        the handle when it is done. With `canary` the new generation gets that
        part of new connections, between 0 and 1, and the old one the rest, until
        `promote` or `rollback`; a crash of a new worker rolls back. Raises
        OptionError.
        """
        part = None if canary is None else canary_part(canary)
        core = self._core
        core.alive()
        now, why = self._look_again()
        options = now.options if now else core.options
        if part is not None and options.surge:
            raise OptionError("canary: it goes with surge 0 only")
        if warning := core.links.warning():
            core.eventlog.warn(warning)
        handle = ReloadHandle(core.drive, self._decide)
        workers = core.options.workers
        if why:
            handle.number = reloading.refuse(core.population, why, time.monotonic())
        else:
            core.revision.begin(now)
            handle.number = reloading.reload(core.population, time.monotonic(), part)
            begun = core.population.reloading
            handle.generation = begun.generation if begun else 0
            if begun:
                core.eventlog.reloads(begun.generation, core.population.size)

        core.publisher.expect(handle, core.revision.over, *filter(None, [callback]))
        if not why:
            core.revision.begun(now, handle.number, workers)
        core.work()
        return handle

    def reopen(self) -> None:
        """Open `log_file` anew, and so a file of --events: after a rotation."""
        self._core.alive()
        for output in self._core.outputs:
            try:
                output.reopen()
            except OSError as error:
                self._core.eventlog.line(f"the log cannot be opened anew: {error.strerror}", ERROR)

    def shutdown(self, *, again: bool = False) -> None:
        """Gracefully: take no new connection, serve what waits, drain, end; after
        `shutdown_timeout` workers that are left are killed. `again`: those that have had
        the stop signal get it once more."""
        core = self._core
        if core.running() is not None:
            core.eventlog.closes(core.population)
            closing.shutdown(core.population, time.monotonic(), again=again)
            core.work()

    def terminate(self, callback: Callable[[], object] | None = None) -> None:
        """At once: kill every worker, release every lane, remove all listeners.
        `callback` is called at the end."""
        core = self._core
        engine = core.running()
        if callback is not None:
            core.on_end.append(callback)
        if engine is not None:
            closing.terminate(core.population, time.monotonic())
            core.work()
        elif callback is not None:
            core.on_end.clear()
            callback()

    def scale(self, workers: int) -> None:
        """Have that many slots; the highest drain. Raises OptionError."""
        count = worker_count(workers)
        self._core.alive()
        self._core.resize(count)

    def _look_again(self) -> tuple[Read | None, str | None]:
        """What the files of the configuration say now, or why the reload cannot be."""
        try:
            return self._core.revision.look(), None
        except OptionError as error:
            return None, str(error)

    def promote(self) -> None:
        """Give the generation on probation (canary, bake) all connections. Raises
        RuntimeError if there is none."""
        self._decide("promote", None)

    def rollback(self) -> None:
        """Give the old generation all connections again. Raises RuntimeError if
        there is no reload to take back."""
        self._decide("rollback", None)

    def _decide(self, what: str, handle: ReloadHandle | None) -> None:
        self._core.alive()
        decide = getattr(reloading, what)
        why = decide(self._core.population, time.monotonic(), handle.number if handle else None)
        if why:
            raise RuntimeError(why)
        self._core.work()

    def weights(self, weights: Mapping[int, float]) -> None:
        """With balance="weighted": give these slots these weights, from the next
        connection on. Raises OptionError."""
        balance = self._core.options.balance
        if balance != "weighted":
            raise OptionError(f"weights: they go with balance weighted, not {balance}")
        try:
            wanted = weights_of(weights)
        except ValueError as error:
            raise OptionError(f"weights: {weights!r} {error}") from None
        self._core.alive()
        why = sizing.weigh(self._core.population, wanted)
        if why:
            raise OptionError(f"weights: {why}")
        self._core.work()

    def restart(self, slot: int) -> None:
        """Replace the worker of a slot, its successor first; at once where the slot pauses.
        Raises OptionError."""
        self._wish("restart", slot)

    def drain(self, slot: int) -> None:
        """Retire the worker of a slot, which stays empty until `resume`. Raises OptionError."""
        self._wish("drain", slot)

    def resume(self, slot: int) -> None:
        """Fill a drained slot again. Raises OptionError."""
        self._wish("resume", slot)

    def _wish(self, what: str, slot: int) -> None:
        self._core.alive()
        why = getattr(sizing, what)(self._core.population, slot, time.monotonic())
        if why:
            raise OptionError(f"{what}: slot {slot}: {why}")
        self._core.work()
