"""In a forked worker, in dispatch: `socket.accept` receives what the master passes.

The master puts one end of a pair of Unix sockets in place of a listening socket
(csrc/pass.c), so the descriptor is readable when a connection is there; `_accept`
receives it with the address that accept(2) gave the master. Everything else about
the socket object stays: blocking, timeouts, and the name it listens on. Code that
calls accept(2) past this class (uvloop) is served by the trap (csrc/accept_door.c).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
import weakref
from typing import Any

from . import _engine

MOST = 0xFFFF  # of a backlog beside our mark
DEFAULT_BACKLOG = 128


def install() -> dict[int, tuple[weakref.ref[Any], Any]]:
    """Before the program runs. Touches the class `socket.socket` only. Returns the
    listening sockets that it knows, by descriptor, with their names."""
    kind: Any = socket.socket
    plain_listen, plain_accept = kind.listen, kind._accept
    plain_name, plain_set = kind.getsockname, kind.setsockopt
    # By number; the reference tells whether the number still is that socket's.
    known: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def listen(self: Any, backlog: int = DEFAULT_BACKLOG, /) -> None:
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if not internet or self.type != socket.SOCK_STREAM or not isinstance(backlog, int):
            plain_listen(self, backlog)
            return
        name = getsockname(self)
        plain_listen(self, _engine.LISTEN_PASSES << 16 | max(0, min(backlog, MOST)))
        if self.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_UNIX:
            known[self.fileno()] = weakref.ref(self), name

    def getsockname(self: Any) -> Any:
        entry = known.get(self.fileno())
        return entry[1] if entry and entry[0]() is self else plain_name(self)

    def setsockopt(self: Any, *args: Any) -> None:
        entry = known.get(self.fileno())
        if entry and entry[0]() is self:  # connections have the options of before listen
            return
        plain_set(self, *args)

    def accept(self: Any) -> tuple[int, Any]:
        number = self.fileno()
        entry = known.get(number)
        if entry is None or entry[0]() is not self:
            return plain_accept(self)  # type: ignore[no-any-return]
        found = _engine.receive_connection(number)
        if found is None:
            found = _wait(number, kind.gettimeout(self))
        return found

    kind.listen, kind._accept = listen, accept
    kind.getsockname, kind.setsockopt = getsockname, setsockopt
    return known


def _wait(number: int, timeout: float | None) -> tuple[int, Any]:
    """As accept(2) on a socket with that timeout. Signal handlers run (PEP 475)."""
    if timeout == 0:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    deadline = None if timeout is None else time.monotonic() + timeout
    waiting = select.poll()
    waiting.register(number, select.POLLIN)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not waiting.poll(left):
            raise TimeoutError("timed out")
        found = _engine.receive_connection(number)
        if found is not None:
            return found
