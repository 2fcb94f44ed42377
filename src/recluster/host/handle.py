"""What `Cluster.reload` returns: the outcome, when there is one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from .loops import Flag

if TYPE_CHECKING:
    from ..events import Reload


class ReloadHandle:
    """One reload. `wait` drives the cluster if nobody else does; in asyncio, await it.

    Attributes: `done`; `ok` (None until done); `why` it failed (or None);
    `generation`; `seconds` it took; `verdicts`, slot -> text; `on_probation`: it
    serves, and may be promoted or rolled back. It is done after that.
    """

    def __init__(
        self,
        drive: Callable[[Callable[[], bool], float | None], bool],
        decide: Callable[[str, ReloadHandle], None],
    ) -> None:
        self._drive = drive
        self._decide = decide
        self.number = 0
        self.on_probation = False
        self.on_serving: Callable[[ReloadHandle], object] | None = None
        self.done = False
        self.ok: bool | None = None
        self.why: str | None = None
        self.generation = 0
        self.seconds = 0.0
        self.verdicts: dict[int, str] = {}
        self._finished = Flag()

    def promote(self) -> None:
        """The probation is over: the new generation gets all connections. Raises
        RuntimeError if it is not on probation."""
        self._decide("promote", self)

    def rollback(self) -> None:
        """The old generation gets all connections again. Raises RuntimeError if
        the reload is over."""
        self._decide("rollback", self)

    def wait_serving(self, timeout: float | None = None) -> bool:
        """Until it serves on probation, or is done; returns whether that is so."""
        return self._drive(lambda: self.on_probation or self.done, timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is done, `timeout` seconds at most; returns `done`."""
        return self._drive(lambda: self.done, timeout)

    def __await__(self) -> Generator[Any, None, ReloadHandle]:
        """In asyncio: until it is done; the handle itself."""
        if not self.done:
            yield from self._finished.__await__()
        return self

    def __repr__(self) -> str:
        state = "under way" if not self.done else "done" if self.ok else f"failed: {self.why}"
        return f"<reload to generation {self.generation}: {state}>"


def finish(handle: ReloadHandle, event: Reload) -> None:
    """By who tells of it; no part of what its user has."""
    handle.ok, handle.why = event.ok, event.why
    handle.generation, handle.seconds = event.generation, event.seconds
    handle.verdicts = event.verdicts
    handle.done, handle.on_probation = True, False
    handle._finished.set()
