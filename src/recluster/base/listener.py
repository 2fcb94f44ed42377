"""A listener and its clients, in the master's loop.

Owns both. All descriptors are in an epoll set of its own, which the loop watches: nothing
here waits for a client, and nothing runs while none is there. Invariants: in one look one
comes in and no more; a client never ends the master; who came while there were no
descriptors is let in within AGAIN seconds of there being one.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from .watcher import Watcher

AGAIN = 1.0  # seconds until accept is tried again, after one that found no descriptors


class Connected(Protocol):
    connection: socket.socket
    fd: int


C = TypeVar("C", bound=Connected)
D = TypeVar("D", bytes, memoryview)


def taken(fd: int) -> socket.socket:
    """A socket that the master before has left open across its exec. Raises OSError."""
    found = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    found.setblocking(False)
    return found


def sent(connection: socket.socket, data: D) -> D:
    """What is left of it, to be sent when there is room. Raises OSError if nobody reads."""
    with contextlib.suppress(BlockingIOError):
        data = data[connection.send(data, socket.MSG_NOSIGNAL) :]
    return data


class Listener(Generic[C]):
    """`came` gets each connection, `ready` each client that has something to read or may be
    written to (or has hung up), `failed` one whose turn raised, with what it raised."""

    def __init__(
        self,
        loop: Watcher,
        listener: socket.socket,
        *,
        came: Callable[[socket.socket], object],
        ready: Callable[[C], object],
        failed: Callable[[C, Exception], object],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._came = came
        self._ready = ready
        self._failed = failed
        self._clients: dict[int, C] = {}  # by descriptor, the oldest first
        self._again_at: float | None = None  # accept found no descriptors
        try:
            self._epoll = select.epoll()
        except BaseException:
            listener.close()
            raise
        try:
            self._epoll.register(listener, select.EPOLLIN)
            loop.watch(self._epoll.fileno(), self._look)
        except BaseException:
            self.abandon()
            raise

    def fileno(self) -> int:
        """Of the listener."""
        return self._listener.fileno()

    @property
    def closed(self) -> bool:
        return self._epoll.closed

    def close(self) -> None:
        if not self.closed:
            self._loop.unwatch(self._epoll.fileno())
            self.abandon()

    def abandon(self) -> None:
        """In a forked worker too: nothing of this is its business."""
        self._listener.close()
        self._epoll.close()
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.connection.close()

    # ---- time: an attendant of the pump --------------------------------------------------

    def look(self) -> None:
        pass

    def deadline(self) -> float | None:
        return self._again_at

    def tick(self, now: float) -> None:
        if self._again_at is not None and self._again_at <= now:
            self._listen_again()

    # ---- clients -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._clients)

    def clients(self) -> list[C]:
        """The oldest first."""
        return list(self._clients.values())

    def has(self, client: C) -> bool:
        return self._clients.get(client.fd) is client

    def drop(self, client: C) -> None:
        """Of one that was never added the connection is closed."""
        if self.has(client):
            del self._clients[client.fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(client.fd)
        client.connection.close()
        if self._again_at is not None and not self.closed:
            self._listen_again()

    def wait(self, client: C, events: int) -> None:
        """With 0 only its hanging up is told. From the first time on it is one of the clients.
        Raises OSError where the kernel has no memory for it."""
        if self.has(client):
            return self._epoll.modify(client.fd, events)
        self._epoll.register(client.fd, events)
        self._clients[client.fd] = client
        return None

    def contained(self, client: C, act: Callable[[C], object]) -> None:
        """What goes wrong ends the client's connection, never the master."""
        try:
            act(client)
        except Exception as error:
            self._failed(client, error)

    # ---- what has come -------------------------------------------------------------------

    def _look(self) -> None:
        """What is done here may fork (a reload that is asked for): then `Forked` is on its
        way through these frames, so nothing in them has a `finally`."""
        fds = [fd for fd, _ in self._epoll.poll(0)]
        # The listener last: a new client may get a descriptor that was told.
        fds.sort(key=self._listener.fileno().__eq__)
        for fd in fds:
            if self.closed:  # what was asked for has ended the cluster
                return
            client = self._clients.get(fd)
            if client is not None:
                self.contained(client, self._ready)
            elif fd == self._listener.fileno():
                self._accept()

    def _accept(self) -> None:
        """The next one in the next look: to try whether there is one costs more."""
        try:
            connection, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptors: those who wait must not wake the master for ever
            self._again_at = time.monotonic() + AGAIN
            return self._epoll.modify(self._listener, 0)
        connection.setblocking(False)
        self._came(connection)
        if self.closed:
            connection.close()

    def _listen_again(self) -> None:
        self._again_at = None
        self._epoll.modify(self._listener, select.EPOLLIN)
