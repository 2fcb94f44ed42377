"""The workers of a running cluster, and what one can say to each.

The part of the public API that looks at workers, or speaks to them, and changes nothing of what
should run.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from ..base.text import line_of
from ..population.view import Worker

if TYPE_CHECKING:
    from .. import _engine
    from ..host.owner import Owner
    from ..population.recovery import Recovering


class Staff:
    """What a Cluster is made of, here its parts by name only."""

    _engine: _engine.Engine | None
    _owner: Owner
    _population: Recovering
    _workers: dict[int, Worker]

    def workers(self) -> list[Worker]:
        """All, including not yet ready and retiring ones, by slot and age."""
        self._owner.check()
        alive = [worker for worker in self._workers.values() if worker.alive]
        return sorted(alive, key=lambda worker: (worker.id, worker.key))

    def active_workers(self) -> dict[int, Worker | None]:
        """Slot -> the ready worker that serves there, or None."""
        self._owner.check()
        active: dict[int, Worker | None] = {}
        for index, slot in sorted(self._population.slots.items()):
            if slot.wanted:
                active[index] = self._workers[slot.serving.id] if slot.serving else None
        return active

    def signal(self, worker: Worker, number: int) -> bool:
        """Send a signal to the worker's process. False if it is gone. Raises ValueError
        for a number that is no signal's."""
        self._owner.check()
        if number not in signal.valid_signals():
            raise ValueError(f"signal: {number!r} is not the number of a signal")
        return self._engine is not None and worker.alive and self._engine.signal(worker.key, number)

    def send(self, worker: Worker, message: Any) -> bool:
        """Queue a message for the worker. False if its channel is closed, or full
        because it does not read. Raises TypeError or ValueError for what JSON cannot
        say (NaN, for one), and for more than a line may have (1 MiB)."""
        self._owner.check()
        line = line_of(message)
        return self._engine is not None and worker.alive and self._engine.send(worker.key, line)

    def broadcast(self, message: Any) -> int:
        """`send` to all workers; returns to how many it could be queued."""
        return sum(self.send(worker, message) for worker in self.workers())
