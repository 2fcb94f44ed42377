"""UDP sockets in the service manager's store: what waits in them is the next master's workers'."""

import contextlib
import json
import socket

import pytest
from clients import GENEROUS
from harness import edit, free_port, stop, until
from storecase import Store, killed, start

ARGS = ("--workers", 3, "--timeout", 10, "--drain-settle", 0.1)


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "notify")) as made:
        yield made


@pytest.fixture
def clients():
    with contextlib.ExitStack() as stack:

        def make(port, count, host="127.0.0.1"):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            made = [
                stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(count)
            ]
            for number, one in enumerate(made):
                one.settimeout(GENEROUS)
                one.connect((host, port))
                one.send(b"%d" % number)
            return made

        yield make


def heard(clients):
    answers = [json.loads(one.recv(1000)) for one in clients]
    assert [int(answer["echo"]) for answer in answers] == list(range(len(clients)))
    return answers


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("policy", ["auto", "weighted"])
def test_who_waits_is_answered_by_the_next_master(apps, store, clients, policy, host):
    port = free_port()
    edit(apps / "udp_server.py", '"127.0.0.1"', repr(host))
    only = ("--weights", "0=1,1=0,2=0") if policy == "weighted" else ()
    server = ("udp_server.py", "asyncio", port)
    with start(store, *ARGS, *server, cwd=apps) as running:
        running.wait_each("ready", 3)
        store.holds(3)
        assert running.reload()["ok"]
        store.holds(6)  # the first three places wait for who binds next
        for event in range(3):
            running.wait_for("exit", slot=event, generation=1)
        for pid in running.pids().values():
            stop(pid)
        waiting = clients(port, 24, host)
        killed(running)
    store.fds = dict(reversed(store.fds.items()))  # in which order they come is not said
    edit(apps / "udp_server.py", 'VERSION = "1"', 'VERSION = "2"')
    with store.next_master(*ARGS, "--balance", policy, *only, *server, cwd=apps) as running:
        running.wait_each("ready", 3)
        assert {answer["version"] for answer in heard(waiting)} == {"2"}
        assert len(running.status()["lanes"]) == 3
        if policy == "weighted":  # each place in the group is known
            assert {one["worker"] for one in heard(clients(port, 60, host))} == {"0"}
        assert running.reload()["ok"]
        for slot in range(3):
            running.wait_for("exit", slot=slot, generation=1)
        store.holds(3)  # those that were bound before are taken first, and the last ones go
        alive = {"0"} if policy == "weighted" else {"0", "1", "2"}
        assert {one["worker"] for one in heard(clients(port, 60, host))} == alive
        assert running.end() == 0
        store.holds(0)


def test_a_filter_of_the_programs_own(apps, store, clients):
    """It is left there, and nothing is found out by it."""
    port = free_port()
    edit(
        apps / "udp_server.py",
        "self.transport = transport",
        "self.transport = transport; import ctypes, struct; text = ctypes.create_string_buffer("
        "struct.pack('HBBI', 6, 0, 0, 0xffffffff)); transport.get_extra_info('socket').setsockopt("
        "1, 26, struct.pack('HxxxxxxP', 1, ctypes.addressof(text)))",
    )
    server = ("udp_server.py", "asyncio", port)
    with start(store, *ARGS, *server, cwd=apps) as running:
        running.wait_each("ready", 3)
        store.holds(3)
        heard(clients(port, 3))
        killed(running)
    with store.next_master(*ARGS, *server, cwd=apps) as running:
        running.wait_each("ready", 3)
        heard(clients(port, 24))
        assert running.end() == 0


def test_an_address_that_nobody_binds_any_more(apps, store, clients):
    """It is given up, and is free again, though the store has it a moment longer."""
    port = free_port()
    with start(store, *ARGS, "udp_server.py", "asyncio", port, cwd=apps) as running:
        running.wait_each("ready", 3)
        store.holds(3)
        killed(running)
    kept = dict(store.fds)
    with store.next_master(*ARGS, "udp_server.py", "asyncio", free_port(), cwd=apps) as running:
        running.wait_each("ready", 3)

        def is_free():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    one.bind(("127.0.0.1", port))
                    return True

        until(is_free)
        until(lambda: store.receive() and not set(store.fds) & set(kept))
        heard(clients(int(running.wait_for("listening")["address"].rpartition(":")[2]), 3))
        assert running.end() == 0
