"""What is going on, on standard error: one line that changes on a terminal, else a line each."""

from __future__ import annotations

import sys
import time


class Progress:
    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._began = time.monotonic()
        self._changing = sys.stderr.isatty()

    def step(self, text: str) -> None:
        """The next step begins."""
        self._done += 1
        seconds = time.monotonic() - self._began
        line = f"[{self._done}/{self._steps}, {seconds:.0f} s] {text}"
        if self._changing:
            sys.stderr.write(f"\r\x1b[K{line[:100]}")
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        sys.stderr.write(("\r\x1b[K" if self._changing else "") + text + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._changing:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
