"""A worker as the API shows it."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.states import State


@dataclass(eq=False)
class Worker:
    """One worker as the API shows it.

    `id` is its slot and its WORKER_ID; `generation` counts reloads; `pid` is 0
    where no process came to be.
    """

    key: int
    id: int
    generation: int
    pid: int
    state: str = State.STARTING.value
    ready: bool = False
    alive: bool = True

    def __str__(self) -> str:
        return f"worker {self.id} (gen {self.generation}, pid {self.pid})"
