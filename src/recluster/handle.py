"""What `Cluster.reload` returns: the outcome, when there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ReloadHandle:
    """One reload. `wait` drives the cluster if nobody else does.

    Attributes: `done`; `ok` (None until done); `why` it failed (or None);
    `generation`; `seconds` it took; `verdicts`, slot -> text.
    """

    def __init__(self, drive: Callable[[Callable[[], bool], float | None], bool]) -> None:
        self._drive = drive
        self.done = False
        self.ok: bool | None = None
        self.why: str | None = None
        self.generation = 0
        self.seconds = 0.0
        self.verdicts: dict[int, str] = {}

    def finish(self, details: dict[str, Any]) -> None:
        self.ok, self.why = details["ok"], details["why"]
        self.generation, self.seconds = details["generation"], details["seconds"]
        self.verdicts = details["verdicts"]
        self.done = True

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is done, `timeout` seconds at most; returns `done`."""
        return self._drive(lambda: self.done, timeout)

    def __repr__(self) -> str:
        state = "under way" if not self.done else "done" if self.ok else f"failed: {self.why}"
        return f"<reload to generation {self.generation}: {state}>"
