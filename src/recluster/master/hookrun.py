"""One run of a hook: a process group of its own, what it prints, and how it ends.

Owns its descriptors. Nothing here waits. The command's shell is a child of another one, which
passes its exit code on through a pipe: in the command line, which is a subreaper, the engine
may reap a child of ours before we do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
from collections.abc import Callable, Mapping

SHELL = "/bin/sh"
SCRIPT = 'sh -c "$1" 3>&-; echo $? >&3'
LINE_MOST = 2000  # characters
OUTPUT_MOST = 1 << 16  # bytes of one run that are told
PIECE = 1 << 16
PIECES = 4  # in one look
ABOVE = 10  # descriptors that become 0 to 3 in the child come from here on


def _high(fd: int) -> int:
    """The same, where no descriptor of the child's will be put over it."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    finally:
        os.close(fd)


class Run:
    """`tell` gets each line that it prints. Raises OSError if it cannot be started."""

    def __init__(
        self, command: str, environ: Mapping[str, str], stdin: bytes, tell: Callable[[str], None]
    ) -> None:
        self.pidfd = self.output = self._status = -1
        self.killed = False
        self.is_silent = False  # it will print no more
        self._tell = tell
        self._line = b""
        self._size = 0
        theirs: list[int] = []
        try:
            theirs.append(_high(os.memfd_create("event")))
            os.pwrite(theirs[0], stdin, 0)
            self.output, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            theirs.append(_high(end))
            os.set_blocking(theirs[1], True)
            self._status, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            theirs.append(_high(end))
            self.pid = self._spawn(command, environ, *theirs)
            with contextlib.suppress(ProcessLookupError):  # SIGCHLD is ignored here: it has ended
                self.pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    @staticmethod
    def _spawn(
        command: str, environ: Mapping[str, str], stdin: int, output: int, status: int
    ) -> int:
        return os.posix_spawn(
            SHELL,
            [SHELL, "-c", SCRIPT, "sh", command],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                (os.POSIX_SPAWN_DUP2, status, 3),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )

    def has_ended(self) -> bool:
        if self.pidfd < 0:
            return True
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        return bool(ended.poll(0))

    def kill(self) -> None:
        """With all that is in its group, whose number is its own while it is not reaped."""
        if not self.has_ended():
            self.killed = True
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def read(self) -> None:
        """Take in what it has printed, in one look: it may print without end."""
        for _ in range(PIECES):
            try:
                data = os.read(self.output, PIECE)
            except OSError as error:
                self.is_silent = error.errno != errno.EAGAIN
                return
            if not data:
                self.is_silent = True
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        before, self._size = self._size, self._size + len(data)
        if before >= OUTPUT_MOST:
            return
        *lines, self._line = (self._line + data[: OUTPUT_MOST - before]).split(b"\n")
        for line in lines:
            self._say(line)
        if self._size >= OUTPUT_MOST:
            self._say(self._line)
            self._line = b""
            self._tell("... (more is not told)")

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="backslashreplace").rstrip()
        if text:
            self._tell(text[:LINE_MOST])

    def end(self) -> int | None:
        """Its exit code, of a run that has ended; None: it was killed, or that is not known."""
        with contextlib.suppress(OSError):  # the engine has reaped it
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        self.read()
        self._say(self._line)
        code = None
        with contextlib.suppress(OSError, ValueError):
            code = int(os.read(self._status, 16))
        self.close()
        return code

    def close(self) -> None:
        for fd in (self.pidfd, self.output, self._status):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.output = self._status = -1
