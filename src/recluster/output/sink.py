"""Lines on their way out: a bounded buffer before an outlet that may be full.

Owns the lines and the count of those that did not fit. Invariants: nothing here waits
but `close`; a line is written whole or counted as lost; where lines are missing the
reader is told how many, in one line, as soon as there is room again.
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..base.watcher import Watcher
from .outlet import PIPE_BUF, Outlet

ROOM = 1 << 20  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk may have room again


class Output(Protocol):
    """What a Cluster has: its log, its event stream, what it hears of workers."""

    @property
    def lines_lost(self) -> int: ...

    @property
    def idle(self) -> bool:
        """Nothing waits here that would be lost with this program."""

    def attach(self, watcher: Watcher) -> None: ...

    def detach(self) -> None: ...

    def reopen(self) -> None: ...

    def abandon(self) -> None: ...

    def close(self, patience: float) -> None: ...


class Sink:
    """`lost` makes the line that tells of so many lines."""

    def __init__(self, outlet: Outlet, lost: Callable[[int], bytes]) -> None:
        self._outlet = outlet
        self._lost = lost
        self._lines: deque[tuple[bytes, int]] = deque()  # and how many lost ones each tells of
        self._size = 0
        self._missing = 0
        self.lines_lost = 0  # ever
        self._watcher: Watcher | None = None
        self._epoll: select.epoll | None = None
        self._waiting = False
        self._gathers = False

    def put(self, line: bytes) -> None:
        """A line, its newline included."""
        self._tell_of_missing()
        if self._missing or (self._lines and self._size + len(line) > ROOM):
            self._missing += 1
            self.lines_lost += 1
        else:
            self._append(line, 0)
        if not self._gathers or self._size > PIPE_BUF:
            self._flush()

    def gather(self) -> None:
        """Lines of one turn are written together: until `write_out`."""
        self._gathers = True

    def write_out(self) -> None:
        self._gathers = False
        self._flush()

    @property
    def idle(self) -> bool:
        return not self._lines and not self._missing

    # ---- who tells of room -----------------------------------------------------------

    def attach(self, watcher: Watcher) -> None:
        """From now on what waits is written when there is room, not only with the next
        line. Costs nothing while there is room."""
        self._watcher = watcher
        self._flush()

    def detach(self) -> None:
        if self._epoll is not None and self._watcher is not None:
            self._watcher.unwatch(self._epoll.fileno())
        self._watcher = None
        self.abandon_epoll()

    def abandon_epoll(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
        self._epoll, self._waiting = None, False

    def reopen(self) -> None:
        """A descriptor that was given cannot be."""

    def abandon(self) -> None:
        """In a forked worker: close, and write nothing."""
        self._lines.clear()
        self._size = 0
        self.abandon_epoll()
        self._outlet.close()

    def close(self, patience: float) -> None:
        """Write what is left, within so many seconds."""
        until = time.monotonic() + patience
        self._flush()
        while self._lines and self._outlet.polled >= 0:
            left = until - time.monotonic()
            room = select.poll()
            room.register(self._outlet.polled, select.POLLOUT)
            if left <= 0 or not room.poll(left * 1000):
                break
            self._flush()
        self._lines.clear()
        self.detach()
        self._outlet.close()

    # ---- inside ----------------------------------------------------------------------

    def _append(self, line: bytes, stands_for: int) -> None:
        self._lines.append((line, stands_for))
        self._size += len(line)

    def _tell_of_missing(self) -> None:
        if self._missing and self._size <= ROOM // 2:
            self._append(self._lost(self._missing), self._missing)
            self._missing = 0

    def _flush(self) -> None:
        while self._lines:
            try:
                self._written(self._outlet.write(self._piece()))
            except BlockingIOError:
                return self._wait_for_room()
            except OSError as error:
                if error.errno not in FULL:
                    self._lose_all()
                return None
            self._tell_of_missing()
        if self._waiting and self._epoll is not None:
            with contextlib.suppress(OSError):  # its owner has closed it
                self._epoll.unregister(self._outlet.polled)
            self._waiting = False
        return None

    def _piece(self) -> bytes:
        """Whole lines, as many as a pipe takes at once; or one that is longer."""
        size = 0
        lines: list[bytes] = []
        for line, _ in self._lines:
            if lines and size + len(line) > PIPE_BUF:
                break
            lines.append(line)
            size += len(line)
        return b"".join(lines)

    def _written(self, count: int) -> None:
        self._size -= count
        while count:
            line, stands_for = self._lines.popleft()
            if count < len(line):
                self._lines.appendleft((line[count:], stands_for))
                return
            count -= len(line)

    def _lose_all(self) -> None:
        """Nobody reads any more; whoever comes to (a FIFO) is told."""
        self._missing += sum(stands_for or 1 for _, stands_for in self._lines)
        self.lines_lost += sum(not stands_for for _, stands_for in self._lines)
        self._lines.clear()
        self._size = 0

    def _wait_for_room(self) -> None:
        if self._waiting or self._watcher is None or self._outlet.polled < 0:
            return
        with contextlib.suppress(OSError):  # no descriptor: the next line tries again
            if self._epoll is None:
                epoll = select.epoll()
                try:
                    self._watcher.watch(epoll.fileno(), self._has_room)
                except BaseException:
                    epoll.close()
                    raise
                self._epoll = epoll
            # An edge: a terminal may poll writable and still not take what we have.
            self._epoll.register(self._outlet.polled, select.EPOLLOUT | select.EPOLLET)
            self._waiting = True

    def _has_room(self) -> None:
        if self._epoll is not None:
            self._epoll.poll(0)
            self._flush()
