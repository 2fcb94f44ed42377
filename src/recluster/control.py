"""The control socket: what `python -m recluster.ctl` asks.

Owns its clients. Each sends one JSON line, gets one and is dropped. All descriptors
are in an epoll set of its own, which the cluster watches: nothing here waits for a
client, and nothing runs while none is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .checks import OptionError
from .socketfile import Refused, default_directory, inode_of, listen_at, make_directory
from .status import status_of

if TYPE_CHECKING:
    from .cluster import Cluster
    from .handle import ReloadHandle

AUTO = "auto"
REQUEST_MOST = 4096  # bytes, without the newline
CLIENTS_MOST = 16
ACCEPTS_PER_LOOK = 64
BUSY = {"ok": False, "busy": True, "error": f"busy: {CLIENTS_MOST} others are asking"}

# What a client is doing.
ASKING, WAITING, TOLD = "asking", "waiting", "told"


def open_control(cluster: Cluster, say: Callable[[str], None]) -> Control | None:
    """As the option `control` says. A path that was asked for and cannot be is
    Refused; the cluster does not end for want of the default one."""
    wanted: str | None = cluster.options.control
    if wanted is None:
        return None
    path = os.path.abspath(wanted)
    try:
        if wanted == AUTO:
            directory = default_directory(os.geteuid(), os.environ)
            path = os.path.join(directory, f"{os.getpid()}.sock")
            make_directory(directory)
        return Control(cluster, path)
    except (Refused, OSError) as error:
        why = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        if wanted != AUTO:
            raise Refused(f"control: {why}") from None
        say(f"no control socket: {why}")
        return None


class Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.state = ASKING
        self.request = b""
        self.answer = b""


class Control:
    """Listens at `path` until closed."""

    def __init__(self, cluster: Cluster, path: str) -> None:
        self.path = path
        self._cluster = cluster
        self._clients: dict[int, Client] = {}  # by descriptor, the oldest first
        self._starved = False
        self._epoll = select.epoll()
        self._listener = listen_at(path)
        self._inode = inode_of(path)
        try:
            # Edges: a connection that cannot be accepted for want of descriptors
            # must not wake the master for ever.
            self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLET)
            cluster.watch(self._epoll.fileno(), self._look)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """The end of the master. The inode stays taken until the listener is
        closed, so one that equals ours is ours."""
        if self._epoll.closed:
            return
        with contextlib.suppress(OSError):
            if inode_of(self.path) == self._inode:
                os.unlink(self.path)
        self._cluster.unwatch(self._epoll.fileno())
        self.abandon()

    def abandon(self) -> None:
        """In a forked worker too: nothing of this is its business."""
        self._listener.close()
        self._epoll.close()
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.connection.close()

    def _look(self) -> None:
        """A reload that is asked for here may fork: then `Forked` is on its way
        through these frames, so nothing in them has a `finally`."""
        fds = [fd for fd, _ in self._epoll.poll(0)]
        # The listener last: a new client may get a descriptor that was told.
        fds.sort(key=self._listener.fileno().__eq__)
        for fd in fds:
            if self._epoll.closed:  # what was asked for has ended the cluster
                return
            client = self._clients.get(fd)
            if client is None:
                if fd == self._listener.fileno():
                    self._accept()
            elif client.state == ASKING:
                self._read(client)
            elif client.state == TOLD:
                self._write(client)
            else:  # it has hung up
                self._drop(client)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_LOOK):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptors: the next that comes or goes lets it in
                self._starved = True
                return
            connection.setblocking(False)
            client = Client(connection)
            if not self._has_room():
                self._answer(client, BUSY)
            elif not self._epoll.closed:
                self._clients[client.fd] = client
                self._epoll.register(client.fd, select.EPOLLIN)
                self._read(client)
            if self._epoll.closed:
                connection.close()
                return
        self._epoll.modify(self._listener, select.EPOLLIN | select.EPOLLET)

    def _has_room(self) -> bool:
        """Whoever is slowest to ask, or to take its answer, makes room."""
        for client in list(self._clients.values()):
            if len(self._clients) < CLIENTS_MOST:
                break
            if client.state == ASKING:
                self._read(client)  # it may have come in this moment
            if client.state == ASKING and client.fd in self._clients:
                self._answer(client, BUSY)
            if client.state == TOLD:
                self._drop(client)
        return len(self._clients) < CLIENTS_MOST

    def _drop(self, client: Client) -> None:
        if self._clients.get(client.fd) is client:
            del self._clients[client.fd]
            self._epoll.unregister(client.fd)
        client.connection.close()
        if self._starved and not self._epoll.closed:
            self._starved = False
            self._epoll.modify(self._listener, select.EPOLLIN | select.EPOLLET)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(REQUEST_MOST + 1 - len(client.request))
        except BlockingIOError:
            return
        except OSError:
            return self._drop(client)
        client.request += data
        line, newline, _ = client.request.partition(b"\n")
        if newline:
            self._asked(client, line)
        elif len(client.request) > REQUEST_MOST:
            self._fail(client, f"a request of more than {REQUEST_MOST} bytes")
        elif not data:
            self._drop(client)

    def _answer(self, client: Client, answer: Mapping[str, Any]) -> None:
        client.state = TOLD
        client.answer = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        self._write(client)

    def _fail(self, client: Client, error: str) -> None:
        self._answer(client, {"ok": False, "error": error})

    def _write(self, client: Client) -> None:
        try:
            sent = client.connection.send(client.answer, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._drop(client)
        client.answer = client.answer[sent:]
        if client.answer and self._clients.get(client.fd) is client:
            self._epoll.modify(client.fd, select.EPOLLOUT)
        else:
            self._drop(client)

    # ---- what is asked ---------------------------------------------------------------

    def _asked(self, client: Client, line: bytes) -> None:
        client.state = WAITING
        self._epoll.modify(client.fd, 0)  # hanging up is told nevertheless
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return self._fail(client, "the request is not JSON")
        command = request.get("cmd") if isinstance(request, dict) else None
        try:
            if command == "status":
                self._answer(client, {"ok": True, "status": status_of(self._cluster)})
            elif command == "reload":
                self._reload(client, request.get("wait") is True, request.get("canary"))
            elif command in ("promote", "rollback"):
                getattr(self._cluster, command)()
                self._answer(client, {"ok": True})
            elif command == "weights":
                self._cluster.weights(request.get("weights"))
                weights = self._cluster._population.weights
                self._answer(client, {"ok": True, "weights": weights})
            else:
                self._fail(client, f"unknown command {str(command)[:80]!r}")
        except (OptionError, RuntimeError) as error:  # what was asked for cannot be
            self._fail(client, str(error))
        except Exception as error:  # a client's question never ends the master
            self._fail(client, f"{command}: {type(error).__name__}: {error}")

    def _reload(self, client: Client, wait: bool, canary: float | None) -> None:
        """Who waits for a canary waits until it serves."""
        if wait:
            handle = self._cluster.reload(
                lambda handle: self._reloaded(client, handle), canary=canary
            )
            handle.on_serving = lambda handle: self._answer_if_waiting(
                client, {"ok": True, "generation": handle.generation, "canary": canary}
            )
            return
        handle = self._cluster.reload(canary=canary)
        if handle.done and not handle.ok:
            self._reloaded(client, handle)
        else:
            self._answer(client, {"ok": True, "generation": handle.generation})

    def _reloaded(self, client: Client, handle: ReloadHandle) -> None:
        answer = {
            "ok": handle.ok,
            "why": handle.why,
            "generation": handle.generation,
            "seconds": round(handle.seconds, 6),
            "verdicts": handle.verdicts,
        }
        self._answer_if_waiting(client, answer)

    def _answer_if_waiting(self, client: Client, answer: Mapping[str, Any]) -> None:
        if self._clients.get(client.fd) is client and client.state == WAITING:
            self._answer(client, answer)
