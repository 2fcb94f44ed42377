"""Lanes in the service manager's store: a master that was killed finds its queues again."""

import signal
import socket

import pytest
from clients import GENEROUS, Load, get, read_answer, send_request
from harness import Running, edit, free_port, stop, until
from storecase import Store, killed, start


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "notify")) as made:
        yield made


def queued(port, count):
    made = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), GENEROUS)
        one.settimeout(GENEROUS)
        send_request(one)
        made.append(one)
    return made


def permute(running, store):
    """Lanes come and go, so that places in the group are not in the order of the slots."""
    running.signal(signal.SIGTTOU)
    store.holds(2)
    running.signal(signal.SIGTTIN)
    store.holds(3)
    assert running.reload()["ok"]
    store.holds(6)
    store.holds(3)


@pytest.mark.parametrize("policy", ["auto", "weighted"])
def test_who_waits_is_answered_by_the_next_master(apps, store, policy):
    port = free_port()
    only = ("--weights", "0=1,1=0,2=0") if policy == "weighted" else ()
    args = ("--workers", 3, "--timeout", 10, "--drain-settle", 0.1, "--balance", policy, *only)
    args = (*args, "asyncio_server.py", port)
    first = ("--workers", 3, "--timeout", 10, "--drain-settle", 0.1, "--balance", "reuseport")
    with start(store, *first, "asyncio_server.py", port, cwd=apps) as running:
        running.wait_each("ready", 3)
        store.holds(3)
        permute(running, store)
        for pid in running.pids().values():
            stop(pid)
        waiting = queued(port, 12)
        killed(running)
    waiting += queued(port, 12)  # nobody is there, and nobody is refused
    edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
    with store.next_master(*args, cwd=apps) as running:
        running.wait_each("ready", 3)
        assert {read_answer(one)["version"] for one in waiting} == {"2"}
        assert len(running.status()["lanes"]) == 3
        assert len(store.fds) == 3
        if policy == "weighted":  # each place in the group is known
            assert {get(port)["worker"] for _ in range(60)} == {"0"}
        with Load(port, clients=4) as load:
            load.more(40)
            assert running.reload()["ok"]
            for slot in range(3):
                running.wait_for("exit", slot=slot, generation=1)
            load.more(40)
        assert not load.failures()
        if policy == "weighted":
            assert {get(port)["worker"] for _ in range(60)} == {"0"}
        assert running.end() == 0


def test_more_lanes_than_workers(apps, store):
    """Those that nobody takes at first are taken by one more generation."""
    port = free_port()
    args = ("--timeout", 10, "--drain-settle", 0.1, "--balance", "reuseport")
    server = ("asyncio_server.py", port)
    with start(store, "--workers", 4, *args, *server, cwd=apps) as running:
        running.wait_each("ready", 4)
        store.holds(4)
        for pid in running.pids().values():
            stop(pid)
        waiting = queued(port, 32)
        killed(running)
    with store.next_master("--workers", 2, *args, *server, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert len([read_answer(one) for one in waiting]) == 32
        store.holds(2)
        assert running.end() == 0


def test_more_workers_than_lanes_and_bind(apps, store):
    port = free_port()
    args = ("--timeout", 10, "--bind", f"127.0.0.1:{port}", "asyncio_server.py", port)
    with start(store, "--workers", 1, *args, cwd=apps) as running:
        running.wait_for("ready")
        store.holds(1)
        stop(running.pids()[0])
        waiting = queued(port, 4)
        killed(running)
    with store.next_master("--workers", 2, *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert len([read_answer(one) for one in waiting]) == 4
        until(lambda: {get(port)["worker"] for _ in range(20)} == {"0", "1"})
        store.holds(2)
        assert running.end() == 0


def test_what_no_worker_wants_any_more_is_refused(apps, store):
    port, other = free_port(), free_port()
    with start(store, "--workers", 1, "asyncio_server.py", port, cwd=apps) as running:
        running.wait_for("ready")
        store.holds(1)
        killed(running)
    with store.next_master("--workers", 1, "asyncio_server.py", other, cwd=apps) as running:
        running.wait_for("ready")
        told = running.wait_for("unclaimed")
        assert told["address"] == f"127.0.0.1:{port}"
        assert get(other)["version"] == "1"
        assert running.end() == 0


def test_a_lane_that_goes_is_taken_out_and_nothing_is_sent_where_there_is_no_room(apps, store):
    args = ("--workers", 2, "--drain-settle", 0.1, "http_server.py", free_port())
    with start(store, *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        store.holds(2)
        running.signal(signal.SIGTTOU)
        store.holds(1)
        assert running.end() == 0
        store.holds(0)
    with Running(*args, cwd=apps, env=store.env()) as running:
        store.has("READY")
        running.wait_each("ready", 2)
        assert running.end() == 0
        store.has("STOPPING")
    assert not store.fds
