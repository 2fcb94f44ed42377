"""The next version, tried before anything is given up: a child that reads what it would be left.

Owns that child. Nothing here waits for it. It says READY as its last line, or why it cannot go on;
how it has ended is not asked, for as a subreaper the engine may reap it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable

from ..base.text import one_line
from ..base.watcher import Watcher

WORD = "--check-state"
READY = "recluster can go on"
SECONDS = 30.0
ABOVE = 10  # descriptors that become 0 to 3 in the child come from here on
STATE = 3  # in the child
OUTPUT_MOST = 1 << 16
SHOWN_MOST = 400  # characters

Verdict = Callable[["str | None"], None]


def command() -> list[str]:
    """This program as it was started, its first word another."""
    words = sys.argv[1:]
    start = sys.orig_argv[: len(sys.orig_argv) - len(words)]
    return [*start, WORD, str(STATE), *words]


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE)


class Trial:
    """`verdict` is called once: None, or why not. Raises OSError if there can be none."""

    def __init__(self, watcher: Watcher, state: int, verdict: Verdict) -> None:
        self._watcher = watcher
        self._verdict = verdict
        self._said = b""
        self.until = time.monotonic() + SECONDS
        self._out, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pidfd = -1
        given: list[int] = []
        try:
            given += [_high(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))]
            given += [_high(theirs), _high(state)]
            os.set_blocking(given[1], True)
            nothing, out, left = given
            pid = os.posix_spawn(
                sys.executable,
                command(),
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, out, 2),
                    (os.POSIX_SPAWN_DUP2, left, STATE),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
            self._pidfd = os.pidfd_open(pid)
            watcher.watch(self._out, self._readable)
        except BaseException:
            self._close()
            raise
        finally:
            for fd in (theirs, *given):
                os.close(fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._out, OUTPUT_MOST)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-OUTPUT_MOST:]
        if not data:
            self.end(None)

    def end(self, why: str | None) -> None:
        """Over: it has closed its output, or there is a reason to wait no longer."""
        if self._out < 0:
            return
        lines = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        said = lines[-1] if lines else "it says nothing"
        self._watcher.unwatch(self._out)
        self._close()
        why = why or (None if said == READY else one_line(said)[:SHOWN_MOST])
        self._verdict(why)

    def _close(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):  # reaped already
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)  # or by the engine
            os.close(self._pidfd)
        os.close(self._out)
        self._out = self._pidfd = -1
