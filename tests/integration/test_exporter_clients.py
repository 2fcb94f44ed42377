"""The exporter alone, with a loop and a text of the test's: who is slow, and who is too many."""

import contextlib
import os
import select
import socket
from types import SimpleNamespace

import pytest
from harness import GENEROUS

from recluster.metrics import exporter as module
from recluster.metrics.census import Census
from recluster.metrics.exporter import CLIENTS_MOST, PATIENCE, Exporter
from recluster.metrics.tally import Tally

ASK = b"GET /metrics HTTP/1.0\r\n\r\n"
LARGE = "x" * 3_000_000


class Loop:
    """What an Exporter needs of a master, and the loop that drives it."""

    def __init__(self, path):
        self.options = SimpleNamespace(metrics=f"unix:{path}")
        self.watched, self.said = {}, []
        self.census, self.tally = Census(self, list, lambda keys: {}), Tally()
        self.eventlog = SimpleNamespace(line=self.said.append)
        self.exporter = Exporter.opened(self)

    def watch(self, fd, callback):
        self.watched[fd] = callback

    def unwatch(self, fd):
        del self.watched[fd]

    def turn(self, timeout=0):
        ready = select.select(list(self.watched), [], [], timeout)[0]
        for fd in ready:
            self.watched[fd]()
        return bool(ready)

    def rest(self):
        while self.turn():
            pass


@pytest.fixture
def texts(monkeypatch):
    """How often a text was made."""
    made = []
    monkeypatch.setattr(module, "text_of", lambda *_: made.append(1) or LARGE)
    return made


@pytest.fixture
def loop(tmp_path, texts):
    path = tmp_path / "metrics.sock"
    made = Loop(path)
    yield made
    made.exporter.close()
    made.exporter.close()
    assert not made.watched and not path.exists()


@pytest.fixture
def connect(loop):
    with contextlib.ExitStack() as stack:

        def connected(ask=b""):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(loop.exporter.address[5:])
            client.settimeout(GENEROUS)
            client.sendall(ask)
            return client

        yield connected


def test_a_slow_one_gets_all_of_it_and_nobody_waits_for_it(loop, connect):
    slow, gone, eager = connect(ASK), connect(ASK), connect(ASK)
    loop.rest()
    gone.close()
    data = b""
    while not data.endswith(b"x" * 10) or len(data) < len(LARGE):
        loop.rest()
        data += eager.recv(1 << 16)
    assert slow.recv(8) == b"HTTP/1.1" and len(loop.exporter._listener) == 1
    data = b""
    while piece := slow.recv(1 << 20):
        data += piece
        loop.rest()
    assert data.partition(b"\r\n\r\n")[2] == LARGE.encode()
    assert not loop.exporter._listener.clients()


def test_patience_ends(loop, connect):
    began = module.time.monotonic()
    silent, slow = connect(b"GET "), connect(ASK)
    loop.rest()
    until = loop.exporter.deadline()
    assert began + PATIENCE <= until <= module.time.monotonic() + PATIENCE
    loop.exporter.tick(until - 0.001)
    assert len(loop.exporter._listener) == 2
    loop.exporter.tick(until + PATIENCE)
    assert not loop.exporter._listener.clients() and loop.exporter.deadline() is None
    assert silent.recv(1) == b""
    data = b""
    while piece := slow.recv(1 << 20):
        data += piece
    assert len(data) < len(LARGE)


def test_the_oldest_makes_room(loop, connect):
    clients = [connect() for _ in range(CLIENTS_MOST)]
    loop.rest()
    newcomer = connect(b"GET /nothing HTTP/1.0\r\n")
    loop.rest()
    assert clients[0].recv(1) == b""
    assert len(loop.exporter._listener) == CLIENTS_MOST
    newcomer.sendall(b"\r\n")
    loop.rest()
    assert newcomer.recv(12) == b"HTTP/1.1 404"
    clients[1].sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
    loop.rest()
    assert clients[1].recv(12) == b"HTTP/1.1 404"


def test_one_look_lets_in_one(loop, connect):
    clients = [connect() for _ in range(CLIENTS_MOST + 5)]
    for come in range(1, CLIENTS_MOST + 1):
        assert loop.turn() and len(loop.exporter._listener) == come
    loop.rest()
    assert len(loop.exporter._listener) == CLIENTS_MOST
    assert clients[4].recv(1) == b"", "the others are not forgotten"


def test_a_request_that_has_come_is_answered_in_the_look_that_lets_it_in(loop, connect):
    client = connect(b"GET /nothing HTTP/1.0\r\n\r\n")
    loop.turn()
    assert client.recv(12) == b"HTTP/1.1 404" and not loop.turn()
    assert not loop.exporter._listener.clients()


def test_a_text_is_given_again_until_something_happens(loop, connect, texts, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def slow_text(*_):
        texts.append(1)
        clock[0] += 0.01
        return "x"

    monkeypatch.setattr(module, "text_of", slow_text)

    def scrape():
        client = connect(ASK)
        loop.rest()
        assert client.recv(100).startswith(b"HTTP/1.1 200")

    scrape()
    scrape()
    clock[0] += 0.099
    scrape()
    assert len(texts) == 1
    loop.tally.changes += 1
    scrape()
    assert len(texts) == 2
    clock[0] += 0.101
    scrape()
    assert len(texts) == 3


def test_an_error_ends_the_connection_and_is_told(loop, connect, monkeypatch):
    def broken(*_):
        raise LookupError("of the text")

    monkeypatch.setattr(module, "text_of", broken)
    client = connect(ASK)
    loop.rest()
    assert client.recv(1) == b""
    assert loop.said[-1] == "a metrics client: LookupError: of the text"
    assert not loop.exporter._listener.clients()


def test_a_fork_closes_and_removes_nothing(loop, connect):
    client = connect()
    loop.rest()
    path = loop.exporter.address[5:]
    loop.exporter.abandon()
    assert client.recv(1) == b"" and os.path.exists(path)
    loop.watched.clear()
    os.unlink(path)
