"""The metrics over HTTP: what Prometheus scrapes and probes ask, out of the master's loop.

Invariant: there are CLIENTS_MOST clients at most, and each is gone after PATIENCE, whatever
it does.
"""

from __future__ import annotations

import select
import socket
import time

from ..base.listener import Listener, sent, taken
from ..base.socketfile import Refused as NoSocket
from ..base.socketfile import inode_of, listen_at, remove_ours
from .census import Known
from .master import Master
from .measures import text_of
from .openmetrics import CONTENT_TYPE, OLDER, Text
from .scraping import Asked, Refused, answer, asked
from .status import health_line

CLIENTS_MOST = 16
PATIENCE = 5.0  # seconds from accept to the last byte of the answer
FRESH = 10  # times what it took: so long a text is given again, if nothing has happened
QUEUE = 16
PATH = "/metrics"


def listen_on(address: str) -> tuple[socket.socket, str]:
    """A listener that does not block, and its address as one may ask it. Raises OSError
    or socketfile.Refused. Without SO_REUSEPORT: no worker may come beside it."""
    kind, _, path = address.partition(":")
    if kind == "unix":
        return listen_at(path), address
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, int(port)))
        listener.listen(QUEUE)
    except BaseException:
        listener.close()
        raise
    number = listener.getsockname()[1]
    return listener, f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


class Client:
    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.until = until
        self.request = b""
        self.asked: Asked | None = None  # and it waits for its answer
        self.answer: memoryview | None = None

    @property
    def gone(self) -> bool:
        return self.connection.fileno() < 0


class Exporter:
    """Listens at `address` until closed."""

    @classmethod
    def opened(cls, master: Master, before: tuple[str, int] | None = None) -> Exporter:
        """As the option `metrics` says; with the address and the listener of the master
        `before`, whose place this one takes. Raises socketfile.Refused."""
        if before is not None:
            address, fd = before
            return cls(master, taken(fd), address)
        wanted = master.options.metrics or ""
        try:
            exporter = cls(master, *listen_on(wanted))
        except (OSError, NoSocket) as error:
            why = getattr(error, "strerror", None) or error
            raise NoSocket(f"metrics: {wanted}: {why}") from None
        url = exporter.address
        master.eventlog.line(
            f"metrics on {url if url.startswith('unix:') else f'http://{url}{PATH}'}"
        )
        return exporter

    def __init__(
        self,
        master: Master,
        listener: socket.socket,
        address: str,
    ) -> None:
        self._master = master
        self._say = master.eventlog.line
        self._text, self._out = "", Text()
        self._asked_at = 0.0
        self._fresh = (-1, 0.0)  # the tally's changes then, and until when it is
        self.address = address
        self._file = address[5:] if address.startswith("unix:") else ""
        self._inode = inode_of(self._file) if self._file else (0, 0)
        try:
            self._listener = Listener[Client](
                master,
                listener,
                came=self._came,
                ready=self._ready,
                failed=self._failed,
            )
        except BaseException:
            remove_ours(self._file, self._inode)
            raise

    def carried(self) -> tuple[str, int]:
        """For the master that takes this one's place."""
        return self.address, self._listener.fileno()

    @property
    def is_asked(self) -> bool:
        return len(self._listener) > 0

    def close(self) -> None:
        if not self._listener.closed:
            remove_ours(self._file, self._inode)
            self._listener.close()

    def abandon(self) -> None:
        """In a forked worker too."""
        self._listener.abandon()

    # ---- time ------------------------------------------------------------------------

    def look(self) -> None:
        pass

    def deadline(self) -> float | None:
        """When the oldest client has to go, or accept is tried again."""
        times = [self._listener.deadline(), *(one.until for one in self._listener.clients()[:1])]
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        for client in [one for one in self._listener.clients() if one.until <= now]:
            self._listener.drop(client)
        self._listener.tick(now)

    # ---- who comes -------------------------------------------------------------------

    def _came(self, connection: socket.socket) -> None:
        client = Client(connection, time.monotonic() + PATIENCE)
        self._listener.contained(client, self._read)

    def _wait(self, client: Client, events: int) -> None:
        """Most are answered without: their requests come with them."""
        if not self._listener.has(client) and len(self._listener) >= CLIENTS_MOST:
            self._listener.drop(self._listener.clients()[0])
        self._listener.wait(client, events)

    def _failed(self, client: Client, error: Exception) -> None:
        self._say(f"a metrics client: {type(error).__name__}: {error}")
        self._listener.drop(client)

    def _ready(self, client: Client) -> None:
        if client.answer is not None:
            self._write(client)
        elif client.asked is None:
            self._read(client)
        else:  # it has hung up before its answer was there
            self._listener.drop(client)

    # ---- a request -------------------------------------------------------------------

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(4096)
        except BlockingIOError:
            return self._wait(client, select.EPOLLIN)
        except OSError:
            return self._listener.drop(client)
        client.request += data
        try:
            client.asked = asked(client.request)
            if client.asked is not None:
                self._answer(client, client.asked)
            elif not data:
                self._listener.drop(client)
            else:
                self._wait(client, select.EPOLLIN)
        except Refused as refused:
            self._tell(client, answer(refused.status, f"{refused}\n"))

    def _answer(self, client: Client, wish: Asked) -> None:
        if wish.path in ("/healthz", "/readyz"):
            line = health_line(self._master, _least(wish))
            word = line.partition(" ")[0]
            fine = word == "ready" or (word == "degraded" and wish.path == "/healthz")
            self._tell(client, answer(200 if fine else 503, f"{line}\n", bare=wish.bare))
        elif wish.path != PATH:
            raise Refused(404, f"there is {PATH}, /healthz, /readyz")
        elif self._is_fresh():
            self._told(client)
        else:
            self._asked_at = time.monotonic()
            self._master.census.ask(
                lambda known: self._listener.contained(
                    client, lambda _: self._measured(client, known)
                )
            )
            if client.answer is None and not client.gone:
                self._wait(client, 0)  # hanging up is told nevertheless

    def _is_fresh(self) -> bool:
        """Scrapers in a loop get a tenth of the master's time at most."""
        changes, until = self._fresh
        return changes == self._master.tally.changes and time.monotonic() < until

    def _measured(self, client: Client, known: Known) -> None:
        if client.gone:
            return
        if not self._is_fresh():
            self._text = text_of(self._master, known, self._out)
            now = time.monotonic()
            took = now - self._asked_at
            self._fresh = self._master.tally.changes, now + FRESH * took
        self._told(client)

    def _told(self, client: Client) -> None:
        assert client.asked is not None
        older = "openmetrics" not in client.asked.accept and "text/plain" in client.asked.accept
        kind = OLDER if older else CONTENT_TYPE
        self._tell(client, answer(200, self._text, kind, client.asked.bare))

    def _tell(self, client: Client, data: bytes) -> None:
        client.answer = memoryview(data)
        self._write(client)

    def _write(self, client: Client) -> None:
        assert client.answer is not None
        try:
            client.answer = sent(client.connection, client.answer)
        except OSError:
            client.answer = None
        if client.answer:
            self._wait(client, select.EPOLLOUT)
        else:
            self._listener.drop(client)


def _least(wish: Asked) -> int | None:
    """min_ready=N, as of `recluster health`. Raises Refused."""
    given = wish.query.get("min_ready")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and 0 < int(given) < 65536):
        raise Refused(400, "min_ready: a whole number of at least 1")
    return int(given)
