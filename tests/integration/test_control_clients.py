"""The control socket with clients that are slow, rude or many, and without a cluster."""

import contextlib
import json
import os
import resource
import select
import signal
import socket
from types import SimpleNamespace

import pytest
from ctlcase import ask, asking, connect, ends, raw, status_of
from harness import GENEROUS, kept, links, until

from recluster.control import control
from recluster.control.control import open_control
from recluster.metrics.census import Census
from recluster.options import Options

# ---- clients that are slow, rude or many ---------------------------------------------


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (b"\n", "JSON"), (b"reload\n", "JSON"), (b"\xff\xfe\n", "JSON"),
        (b"[" * 4000 + b"\n", "JSON"),
        (b"[]\n", "unknown command"), (b'{"cmd":"frob"}\n', "unknown command"),
        (b'{"cmd":["status"]}\n', "unknown command"), (b"x" * 4097, "4096"),
        (b'{"cmd":"status"' + b" " * 8192 + b"}\n", "4096"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered(request_, word, running, path):
    answer = raw(path, request_)
    assert answer["ok"] is False and word in answer["error"]
    assert raw(path, b'{"cmd": "status"}\n')["ok"]


def test_the_longest_request(running, path):
    assert raw(path, b'{"cmd":"status"' + b" " * (4096 - 16) + b"}\n")["ok"]


def test_a_request_in_pieces(running, path):
    with connect(path) as slow:
        for byte in b'{"cmd": "status"}\n':
            assert status_of(running, path)["generation"] == 1
            slow.sendall(bytes([byte]))
        assert json.loads(slow.makefile().readline())["ok"]


def test_one_request_per_connection(running, path):
    with connect(path) as client:
        client.sendall(b'{"cmd": "status"}\n{"cmd": "reload"}\n')
        with contextlib.suppress(ConnectionResetError):
            assert client.makefile().read().count("\n") == 1
    assert status_of(running, path)["generation"] == 1
    assert running.count("reload") == 0


def test_a_half_closed_client_gets_its_answer(running, path):
    with connect(path) as client:
        client.sendall(b'{"cmd": "reload", "wait": true}\n')
        client.shutdown(socket.SHUT_WR)
        assert json.loads(client.makefile().readline())["ok"]


def test_clients_that_say_nothing_make_room(running, path):
    status_of(running, path)  # what the first one opens (sock_diag) stays
    before = len(kept(running.process.pid))
    with contextlib.ExitStack() as idle:
        clients = [idle.enter_context(connect(path)) for _ in range(60)]
        assert status_of(running, path)["pid"] == running.process.pid
        assert len(kept(running.process.pid)) <= before + 16
        # Those that had to go were told why.
        assert json.loads(clients[0].makefile().readline())["busy"]
    until(lambda: len(kept(running.process.pid)) <= before)


def test_those_that_wait_are_not_pushed_out(hanging, path):
    with contextlib.ExitStack() as held_open:
        waiting = [held_open.enter_context(connect(path)) for _ in range(16)]
        for client in waiting:
            client.sendall(b'{"cmd": "reload", "wait": true}\n')
        # Each supersedes the one before, which is told so and makes room. Which is the last is
        # the master's to say: one that it let in before the others may be heard after them.
        for _ in waiting[:-1]:
            told, _, _ = select.select(waiting, [], [], GENEROUS)
            assert told, f"{len(waiting)} still wait"
            assert "superseded" in json.loads(told[0].makefile().readline())["why"]
            waiting.remove(told[0])
        assert status_of(hanging, path)["reloading"] == 17
        hanging.signal(signal.SIGTERM)
        assert "shutting down" in json.loads(waiting[0].makefile().readline())["why"]


def test_a_client_that_hangs_up_while_it_waits(hanging, path):
    before = len(kept(hanging.process.pid))
    with contextlib.ExitStack() as held_open:
        clients = [held_open.enter_context(connect(path)) for _ in range(3)]
        clients[0].sendall(b'{"cmd": "reload", "wait": true}\n')
        hanging.wait_each("online", 2, generation=2)
    hanging.signal(signal.SIGUSR2)  # ends the reload that nobody waits for any more
    assert "superseded" in hanging.wait_for("reload")["why"]
    hanging.wait_each("exit", 2, generation=2)
    hanging.wait_each("online", 2, generation=3)
    # Two more workers run now than before; a client would be one descriptor more.
    once = len(kept(hanging.process.pid))
    with connect(path) as client:
        client.sendall(b'{"cmd": "status"}\n')
        assert json.loads(client.makefile().readline())["ok"]
        until(lambda: len(kept(hanging.process.pid)) == once)
    assert once > before


def test_many_tools_at_once(running, path):
    with contextlib.ExitStack() as all_of_them:
        tools = [all_of_them.enter_context(asking("--control", path, "status")) for _ in range(30)]
        assert [ends(tool)[0] for tool in tools] == [0] * 30


def test_forked_workers_hold_nothing_of_it(running, path):
    with connect(path) as idle:
        idle.sendall(b'{"cmd"')
        assert ask("--control", path, "reload", "--wait")[0] == 0
        masters = {link for link in links(running.process.pid) if "socket" in link}
        for pid in running.pids().values():
            theirs = set(links(pid))
            # What they share with the master is their own lanes and channels.
            shared = masters & theirs
            assert len(shared) <= 1, (masters, theirs)
            assert not any("eventpoll" in link for link in theirs)


def test_asking_leaves_nothing_behind(running, path):
    status_of(running, path)  # what the first one opens (sock_diag) stays
    before = kept(running.process.pid)
    for _ in range(20):
        assert raw(path, b'{"cmd": "status"}\n')["ok"]
        raw(path, b"nonsense\n")
        connect(path).close()
    until(lambda: kept(running.process.pid) == before)


# ---- a server alone ------------------------------------------------------------------


class Loop:
    """What a Control needs of a master, and the loop that drives it."""

    def __init__(self, path):
        self.options = Options.make({"control": path}, {})
        self._watched = {}
        self.census = Census(self, list, lambda keys: {})
        self.eventlog = SimpleNamespace(warn=print)
        self.control = open_control(self, None, None, "loop")

    def watch(self, fd, callback):
        self._watched[fd] = callback

    def unwatch(self, fd):
        del self._watched[fd]

    def turn(self, timeout=GENEROUS):
        """Whatever is to be done now; False if there was nothing."""
        ready = select.select(list(self._watched), [], [], timeout)[0]
        for fd in ready:
            self._watched[fd]()
        return bool(ready)


@pytest.fixture
def loop(path):
    made = Loop(path)
    yield made
    made.control.close()
    assert not os.path.lexists(path)


def test_an_answer_larger_than_a_buffer(loop, path, monkeypatch):
    """It waits for its client; the master waits for nobody."""
    large = {"text": "x" * 3_000_000}
    monkeypatch.setattr(control, "status_of", lambda cluster, known: large)
    with connect(path) as lazy, connect(path) as eager, connect(path) as gone:
        for client in (lazy, eager, gone):
            client.sendall(b'{"cmd": "status"}\n')
        while loop.turn(0):
            pass
        gone.close()
        data = b""
        while not data.endswith(b"\n"):
            if not loop.turn(0):
                data += eager.recv(1 << 16)
        assert json.loads(data)["status"] == large
        assert lazy.recv(10) == b'{"ok":true'
        while loop.turn(0):
            pass
        assert len(loop.control.listener) == 1


def test_without_descriptors_it_neither_spins_nor_forgets(loop, path):
    with contextlib.ExitStack() as clients:
        first, second = (clients.enter_context(connect(path)) for _ in range(2))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            with socket.socket(socket.AF_UNIX):  # the last descriptor
                first.sendall(b'{"cmd": "nothing"}\n')
                second.sendall(b'{"cmd": "nothing"}\n')
                assert loop.turn()
                assert not loop.turn(0)
                loop.control.listener.tick(loop.control.listener.deadline())
                assert loop.turn(0) and not loop.turn(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        loop.control.listener.tick(loop.control.listener.deadline())  # nobody comes or goes
        while loop.turn(0):
            pass
        assert loop.control.listener.deadline() is None
        for client in (first, second):
            assert "unknown command" in client.recv(200).decode()


def test_a_question_that_goes_wrong_is_answered(loop, path, monkeypatch):
    def broken(cluster, known):
        raise LookupError("of status")

    monkeypatch.setattr(control, "status_of", broken)
    with connect(path) as client:
        client.sendall(b'{"cmd": "status"}\n')
        while loop.turn(0):
            pass
        assert json.loads(client.recv(200))["error"] == "status: LookupError: of status"
