"""Who may use a running cluster: the thread that started it, in the process that did.

Owns the one check of it. The engine is not thread-safe (it lets go of the interpreter
while it waits), and in a process that the host has forked the cluster is the parent's:
there its pidfds would still reach the workers.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from .forks import living


class Owner:
    """Made by the thread that starts the cluster. `forget`: called in a forked child, at
    once."""

    def __init__(self, forget: Callable[[], None]) -> None:
        self.forget = forget
        living.add(self)
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._busy = False

    @property
    def is_here(self) -> bool:
        """False in a process that was forked since."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raises RuntimeError for any other process or thread."""
        if not self.is_here:
            raise RuntimeError(f"the cluster belongs to process {self._pid}, which forked this one")
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "the cluster belongs to another thread: call from there (call_soon_threadsafe)"
            )

    def check_idle(self) -> None:
        """Raises RuntimeError inside a callback too: what it would wait for is behind it."""
        self.check()
        if self._busy:
            raise RuntimeError("inside a callback one cannot wait for the cluster: return first")

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While this lasts callbacks may run."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before
