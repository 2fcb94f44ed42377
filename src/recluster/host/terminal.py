"""A worker that has the terminal: `breakpoint()`, `input()` and ^C work in it as if it had been
started by hand. Of a master with one worker (`recluster dev`).

Such a worker is in the master's process group, which is the terminal's foreground group, and
keeps its standard input. So its group cannot be killed at its end: what it leaves is looked for
instead (csrc/process/strays.c). One that is killed at a prompt leaves the terminal as the prompt
had it; what it was before is put back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any

from .. import _engine


def has_terminal() -> bool:
    """Whether standard input is the terminal that controls us, and we are in its foreground."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


class Terminal:
    def __init__(self, engine: _engine.Engine) -> None:
        self._engine = engine
        self._before: list[Any] | None = None
        with contextlib.suppress(termios.error):
            self._before = termios.tcgetattr(0)
        engine.foreground()

    def ended(self, key: int) -> None:
        """That worker has ended, and is not told of yet."""
        with contextlib.suppress(OSError):
            self._engine.strays(key, signal.SIGKILL)
        if self._before is not None and has_terminal():  # else it would stop us
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, self._before)
