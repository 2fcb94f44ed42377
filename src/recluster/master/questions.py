"""The question that tells whether a worker is ready: a GET on a connection to that worker.

Owns the connections, one for each worker that is asked. The master does not wait for them:
they are in its loop. Does not own when to ask, nor for how long (`population`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import _engine
from ..base.watcher import Watcher
from ..options import Options
from ..options.checks import ReadyUrl
from ..output.eventlog import EventLog
from ..population import readiness
from ..population.state import Population
from .answers import judged

Answered = Callable[[int, "str | None"], None]


def secured(plain: socket.socket, url: ReadyUrl) -> socket.socket:
    """Over TLS, with whatever certificate: it is our own worker, by its own lane."""
    import ssl  # not for the master: where it is wanted, no worker is forked from it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=url.host, do_handshake_on_connect=False)


class Question:
    def __init__(self, connection: socket.socket, url: ReadyUrl) -> None:
        self.connection = secured(connection, url) if url.tls else connection
        self._tls = url.tls
        self._unsent = url.request
        self._data = b""

    def go_on(self) -> tuple[bool, str | None]:
        """As `judged`. Raises OSError."""
        ended = False
        with contextlib.suppress(BlockingIOError):
            try:
                if self._tls:
                    self.connection.do_handshake()  # type: ignore[attr-defined]
                if self._unsent:
                    self._unsent = self._unsent[self.connection.send(self._unsent) :]
                while not ended:
                    more = self.connection.recv(4096)
                    self._data += more
                    ended = not more or judged(self._data, False)[0]
            except OSError as error:
                if not self._tls or error.errno not in (WANT_READ, WANT_WRITE):
                    raise
        return judged(self._data, ended)


WANT_READ, WANT_WRITE = 2, 3  # ssl.SSL_ERROR_WANT_READ and _WRITE


@dataclass(eq=False)
class Asking:
    """`answered` is told for which worker, and None if it is ready, else what it said."""

    engine: _engine.Engine
    watcher: Watcher
    url: ReadyUrl
    answered: Answered
    unasked: Callable[[int], None]
    _questions: dict[int, Question] = field(default_factory=dict, init=False)

    def ask(self, key: int) -> None:
        """What was asked before, and not answered, is given up."""
        self.forget(key)
        try:
            plain = socket.socket(fileno=self.engine.knock(key))
        except OSError as error:
            if error.errno == errno.ENOENT:
                self.unasked(key)
            self.answered(key, None if error.errno == errno.ENOENT else str(error.strerror))
            return
        plain.setblocking(False)
        question = self._questions[key] = Question(plain, self.url)
        self.watcher.watch(question.connection.fileno(), lambda: self._go_on(key))
        self._go_on(key)

    def _go_on(self, key: int) -> None:
        try:
            known, refusal = self._questions[key].go_on()
        except OSError as error:
            known, refusal = True, str(error.strerror or error)
        if known:
            self.forget(key)
            self.answered(key, refusal)

    def forget(self, key: int) -> None:
        question = self._questions.pop(key, None)
        if question is not None:
            self.watcher.unwatch(question.connection.fileno())
            question.connection.close()
            self.engine.knock_end(key)

    @property
    def tls(self) -> bool:
        return self.url.tls

    def abandon(self) -> None:
        """In a forked child: closes only."""
        for question in self._questions.values():
            question.connection.close()


def prepare(
    engine: _engine.Engine,
    watcher: Watcher,
    options: Options,
    population: Population,
    eventlog: EventLog,
    work: Callable[[], None],
) -> Asking | None:
    """What `ready_when` needs, before the first worker. `work` carries commands out."""
    if options.ready_when == "accepting":
        engine.prove()
    if options.ready_url is None:
        return None

    def answered(key: int, refusal: str | None) -> None:
        readiness.answered(population, key, refusal, time.monotonic())
        work()

    def unasked(key: int) -> None:
        text = f"ready_url: a worker that has no TCP lane of its own is not asked for {url}"
        eventlog.once("unasked", text)

    url = options.ready_url
    return Asking(engine, watcher, url, answered, unasked)
