"""What one can ask of a running cluster: other code, other slots, other weights.

The part of the public API that only hands a wish to the population, and says why not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..base.levels import ERROR
from ..host.driving import Driving
from ..options.checks import OptionError, canary_part, weights_of
from .handle import ReloadHandle

if TYPE_CHECKING:
    from ..metrics.measuring import Measuring
    from ..options import Options
    from ..output.sink import Output
    from ..population.recovery import Recovering
    from .links import Links
    from .revision import Revision
    from .settings import Read


class Wishes(Driving):
    """What a Cluster is made of, here its parts by name only."""

    options: Options
    _population: Recovering
    _links: Links
    _revision: Revision
    _outputs: list[Output]
    _measuring: Measuring

    @property
    def metrics_address(self) -> str | None:
        """Where --metrics is answered, once it runs: with port 0, at which one."""
        return self._measuring.address

    def size(self) -> int:
        """How many slots are wanted: what `scale` was last told, or `workers`."""
        self._owner.check()
        slots = self._population.slots.values()
        return sum(slot.wanted and not slot.surplus for slot in slots)

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
        self._alive()
        now, why = self._look_again()
        options = now.options if now else self.options
        if part is not None and options.surge:
            raise OptionError("canary: it goes with surge 0 only")
        if warning := self._links.warning():
            self._eventlog.warn(warning)
        handle = ReloadHandle(self._drive, self._decide)
        workers = self.options.workers
        if why:
            handle.number = self._population.refuse(why, time.monotonic())
        else:
            self._revision.begin(now)
            handle.number = self._population.reload(time.monotonic(), part)
            reloading = self._population.reloading
            handle.generation = reloading.generation if reloading else 0
            if reloading:
                self._eventlog.reloads(reloading.generation, self.size())

        self._publisher.expect(handle, self._revision.over, *filter(None, [callback]))
        if not why:
            self._revision.begun(now, handle.number, workers)
        self._work()
        return handle

    def reopen(self) -> None:
        """Open `log_file` anew, and so a file of --events: after a rotation."""
        self._alive()
        for output in self._outputs:
            try:
                output.reopen()
            except OSError as error:
                self._eventlog.line(f"the log cannot be opened anew: {error.strerror}", ERROR)

    def _look_again(self) -> tuple[Read | None, str | None]:
        """What the files of the configuration say now, or why the reload cannot be."""
        try:
            return self._revision.look(), None
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
        self._alive()
        decide = getattr(self._population, what)
        why = decide(time.monotonic(), handle.number if handle else None)
        if why:
            raise RuntimeError(why)
        self._work()

    def weights(self, weights: Mapping[int, float]) -> None:
        """With balance="weighted": give these slots these weights, from the next
        connection on. Raises OptionError."""
        if self.options.balance != "weighted":
            raise OptionError(f"weights: they go with balance weighted, not {self.options.balance}")
        try:
            wanted = weights_of(weights)
        except ValueError as error:
            raise OptionError(f"weights: {weights!r} {error}") from None
        self._alive()
        why = self._population.weigh(wanted)
        if why:
            raise OptionError(f"weights: {why}")
        self._work()

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
        self._alive()
        ask: Callable[[int, float], str | None] = getattr(self._population, what)
        why = ask(slot, time.monotonic())
        if why:
            raise OptionError(f"{what}: slot {slot}: {why}")
        self._work()
