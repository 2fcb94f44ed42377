"""The workers of a running cluster, and what one can say to each.

The part of the public API that looks at workers, or speaks to them, and changes nothing of what
should run.
"""

from __future__ import annotations

import signal
from typing import Any

from ..base.text import line_of
from ..events.view import Worker
from .supervisor import Supervisor


class Staff:
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
