"""What a reload makes of options that have changed meanwhile.

Owns the order: what new workers need before they are spawned, what takes something away only
when the new generation serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..host.handle import ReloadHandle
from ..options.checks import OptionError
from ..population import sizing
from ..population.state import Population
from .settings import Read, Settings


@dataclass(eq=False)
class Revision:
    """`resize`: to so many slots, as `scale` does. `line` tells."""

    settings: Settings
    population: Population
    resize: Callable[[int], None]
    line: Callable[[str], object]
    _before: int = field(default=0, init=False)  # slots

    @property
    def path(self) -> str:
        """The configuration file, as it was named; empty without one."""
        return self.settings.named

    def starts(self) -> None:
        if self.path:
            self.line(f"configured by {self.path}")

    def look(self) -> Read | None:
        """What the files say now; None where there are none. Raises OptionError."""
        return self.settings.again()

    def begin(self, now: Read | None) -> None:
        """A reload is about to begin."""
        if now is None:
            return
        changes, pending = self.settings.differences(now)
        told = [f"changed: {', '.join(changes)}"] if changes else []
        told += [f"for a restart: {', '.join(pending)}"] if pending else []
        if told:
            self.line(f"configuration: {'; '.join(told)}")
        self.settings.take(now)
        sizing.revised(self.population)

    def begun(self, now: Read | None, number: int, workers: int) -> None:
        """It has a number. `workers`: what was wanted before. Slots that are new come with
        the new generation."""
        if now is None:
            return
        self.settings.expect(number)
        self._before = self.population.size
        wanted = now.options.workers
        if wanted != workers and wanted > self._before:
            self._change(wanted)

    def over(self, handle: ReloadHandle) -> None:
        both = self.settings.over(handle.number, bool(handle.ok))
        if both is None:
            return
        good, tried = both
        sizing.revised(self.population)
        if good.workers != tried.workers:
            self._change(tried.workers if handle.ok else self._before)
        if handle.ok and good.weights != tried.weights:
            sizing.weigh(self.population, {**dict.fromkeys(good.weights, 1.0), **tried.weights})

    def _change(self, workers: int) -> None:
        if workers == self.population.size:
            return
        try:
            self.resize(workers)
        except OptionError as error:
            self.line(str(error))
