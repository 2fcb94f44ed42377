"""sd_notify(3) in plain Python: datagrams to the service manager, never waited for.

Owns the socket and what could not be sent yet. The manager may be slow, have its queue full,
or be gone: none of that stops or ends the master.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable

VARIABLES = ("NOTIFY_SOCKET", "NOTIFY_FD", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")
"""What the manager says to the master alone: a worker that spoke to it would speak for itself."""

WAITING_MOST = 64
_INT = struct.Struct("i")
_Message = tuple[bytes, "int | None"]


class Notifier:
    """`address` is NOTIFY_SOCKET. Raises OSError, ValueError for one that there cannot be."""

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        if address[:1] not in ("/", "@"):
            raise ValueError("it is neither a path nor an abstract name")
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._say = say
        self._told = False
        self._waiting: deque[_Message] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @property
    def is_behind(self) -> bool:
        """Something waits to be sent; `flush` tries."""
        return bool(self._waiting)

    def send(self, lines: Iterable[str], fd: int | None = None) -> None:
        """In one datagram, with that descriptor. It is kept while the manager's queue is full;
        of what is too much the oldest goes."""
        own = None
        if fd is not None:
            try:
                own = os.dup(fd)  # the caller's may be closed before it can be sent
            except OSError:
                return
        self._waiting.append(("\n".join(lines).encode(errors="replace"), own))
        if len(self._waiting) > WAITING_MOST:
            self._forget_first()
        self.flush()

    def flush(self) -> None:
        while self._waiting:
            data, fd = self._waiting[0]
            rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(fd))]
            try:
                self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL, self._address)
            except BlockingIOError:
                return
            except OSError as error:  # it is gone: what it missed it need not hear later
                if not self._told:
                    self._say(f"the service manager cannot be told: {error.strerror or error}")
                self._told = True
            self._forget_first()

    def _forget_first(self) -> None:
        _, fd = self._waiting.popleft()
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """In a forked worker too."""
        while self._waiting:
            with contextlib.suppress(OSError):
                self._forget_first()
        self._socket.close()
