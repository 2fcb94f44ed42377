"""What one can ask of a running cluster: other code, other slots, other weights.

The part of the public API that only hands a wish to the population, and says why not: for the
user, the control socket and the signals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..base.levels import ERROR
from ..host.handle import ReloadHandle
from ..options.checks import OptionError, canary_part, weights_of, worker_count
from .settings import Read
from .staff import Staff


class Wishes(Staff):
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
            handle.number = core.population.refuse(why, time.monotonic())
        else:
            core.revision.begin(now)
            handle.number = core.population.reload(time.monotonic(), part)
            reloading = core.population.reloading
            handle.generation = reloading.generation if reloading else 0
            if reloading:
                core.eventlog.reloads(reloading.generation, core.population.size)

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
            core.population.shutdown(time.monotonic(), again=again)
            core.work()

    def terminate(self, callback: Callable[[], object] | None = None) -> None:
        """At once: kill every worker, release every lane, remove all listeners.
        `callback` is called at the end."""
        core = self._core
        engine = core.running()
        if callback is not None:
            core.on_end.append(callback)
        if engine is not None:
            core.population.terminate(time.monotonic())
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
        decide = getattr(self._core.population, what)
        why = decide(time.monotonic(), handle.number if handle else None)
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
        why = self._core.population.weigh(wanted)
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
        ask: Callable[[int, float], str | None] = getattr(self._core.population, what)
        why = ask(slot, time.monotonic())
        if why:
            raise OptionError(f"{what}: slot {slot}: {why}")
        self._core.work()
