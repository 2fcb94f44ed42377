"""A descriptor that others may share, written to without ever waiting.

O_NONBLOCK belongs to the open file: set on a pipe or a terminal that was inherited, it
would be set for the workers and the shell too. So each kind has a way of its own:

- a socket: MSG_DONTWAIT with every send;
- a pipe or a terminal: opened a second time, which is an open file of our own;
- a pipe that may not be opened (another user's, as in containers; no /proc): by
  splice(2) from a pipe of our own, which takes SPLICE_F_NONBLOCK. That a pipe polls
  writable would not do: a worker may take the room before us;
- a terminal that may not be opened: /dev/tty where it is the same, else a few bytes
  while it polls writable;
- all else (a file, a device) has no reader to wait for, and is written as it is.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat

PIPE_BUF = select.PIPE_BUF  # what a pipe takes whole or not at all
OWN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
TERMINAL_PIECE = 256


class Outlet:
    """`write` returns how many bytes were taken, 1 at least, and raises BlockingIOError
    where there is no room, or another OSError. `polled` tells of room; -1: nothing does."""

    def __init__(self, fd: int, polled: int, own: tuple[int, ...] = ()) -> None:
        self.polled = polled
        self._fd = fd
        self._own = own
        self._kept = -1

    def write(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def keeps(self, fd: int) -> None:
        """The descriptor is the outlet's from now on, and closed with it."""
        self._kept = fd

    def close(self) -> None:
        for fd in self._own:
            os.close(fd)
        self._own = ()
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1


def _while_polled(fd: int, data: bytes) -> int:
    room = select.poll()
    room.register(fd, select.POLLOUT)
    if not room.poll(0):
        raise BlockingIOError
    return os.write(fd, data)


class _Socket(Outlet):
    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))
        super().__init__(fd, self._socket.fileno())

    def write(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()
        super().close()


class _Spliced(Outlet):
    def __init__(self, fd: int) -> None:
        self._ours = os.pipe()
        super().__init__(fd, fd, self._ours)

    def write(self, data: bytes) -> int:
        """A page at most, so that it is one buffer of the pipe and passes whole."""
        out, into = self._ours
        staged = os.write(into, data[:PIPE_BUF])
        passed = 0
        try:
            passed = os.splice(out, self._fd, staged, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS):
                raise
            return _while_polled(self._fd, data[:PIPE_BUF])  # a sandbox without splice(2)
        finally:
            if passed < staged:
                os.read(out, staged - passed)
        return passed


class _Polled(Outlet):
    def __init__(self, fd: int) -> None:
        super().__init__(fd, fd)

    def write(self, data: bytes) -> int:
        return _while_polled(self._fd, data[:TERMINAL_PIECE])


def _controls_us(device: int) -> bool:
    """Whether that is the terminal which /dev/tty opens (tty_nr, proc(5))."""
    with open("/proc/self/stat", "rb") as file:
        number = int(file.read().rpartition(b")")[2].split()[4])
    minor = (number & 0xFF) | (number >> 12 & 0xFFF00)
    return (os.major(device), os.minor(device)) == (number >> 8 & 0xFFF, minor)


def _terminal(fd: int) -> Outlet:
    for path in (f"/proc/self/fd/{fd}", "/dev/tty"):
        try:
            if path != "/dev/tty" or _controls_us(os.fstat(fd).st_rdev):
                own = os.open(path, OWN)
                return Outlet(own, own, (own,))
        except (OSError, ValueError, IndexError):
            pass
    return _Polled(fd)


def _pipe(fd: int) -> Outlet:
    try:
        own = os.open(f"/proc/self/fd/{fd}", OWN)
    except OSError:
        return _Spliced(fd)
    return Outlet(own, own, (own,))


def open_outlet(fd: int) -> Outlet:
    """Raises OSError. The descriptor stays the caller's, and open as long as the outlet."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _Socket(fd)
    if stat.S_ISFIFO(mode):
        return _pipe(fd)
    if os.isatty(fd):
        return _terminal(fd)
    return Outlet(fd, -1)
