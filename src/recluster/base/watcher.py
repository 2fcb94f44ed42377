"""The loop, as everything that has a descriptor in it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Watcher(Protocol):
    """Calls `callback` whenever `fd` is readable, until `unwatch`, which comes before close(2)."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
