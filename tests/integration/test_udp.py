"""UDP servers: shared, a flow stays with its worker, reload, crash."""

import ctypes
import json
import os
import shutil
import signal
import socket
import struct

import pytest
from clients import GENEROUS
from harness import Running, edit, free_port, stop

WORKERS = 3
KINDS = ("socketserver", "asyncio", "node")


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("node is not installed")
    return request.param


def command(kind, port):
    if kind == "node":
        return ["--", "node", "udp_node.js", port]
    return ["udp_server.py", kind, port]


def client():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(GENEROUS)
    return sock


def ask(sock, port, text="x"):
    sock.sendto(text.encode(), ("127.0.0.1", port))
    facts = json.loads(sock.recv(999))
    assert facts["echo"] == text
    return facts


def workers(clients, port):
    return [ask(sock, port)["worker"] for sock in clients]


def test_flows_stay_move_at_reload_and_survive(kind, apps):
    port = free_port()
    clients = [client() for _ in range(40)]
    # Without settling flows move at once, also where the kernel could keep them.
    options = ("--workers", WORKERS, "--respawn", 0.1, "--timeout", 10, "--drain-settle", 0)
    with Running(*options, *command(kind, port), cwd=apps) as running:
        running.wait_each("ready", WORKERS)
        assert running.wait_for("listening")["address"] == f"udp:127.0.0.1:{port}"
        first = workers(clients, port)
        assert set(first) == {"0", "1", "2"}
        assert workers(clients, port) == first

        edit(
            apps / ("udp_node.js" if kind == "node" else "udp_server.py"),
            'VERSION = "1"',
            'VERSION = "2"',
        )
        assert running.reload()["ok"]
        assert {ask(sock, port)["version"] for sock in clients} == {"2"}
        for slot in range(WORKERS):
            running.wait_for("exit", slot=slot, generation=1)
        second = workers(clients, port)
        assert workers(clients, port) == second

        # Flows of the others stay where they are, and come to an answer, while
        # one is dead; what waits in its queue is read by its successor.
        victim = running.wait_for("ready", slot=1, generation=2)["pid"]
        stop(victim)
        waiting = clients[second.index("1")]
        waiting.sendto(b"kept", ("127.0.0.1", port))
        os.kill(victim, signal.SIGKILL)
        successor = running.wait_for("ready", slot=1, generation=2)["pid"]
        facts = json.loads(waiting.recv(999))
        assert (facts["echo"], facts["pid"]) == ("kept", successor)
        assert workers(clients, port) == second
        assert running.end() == 0
    for sock in clients:
        sock.close()


def may_load_programs():
    """As the engine finds out: by asking for a map that nobody needs."""
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    attributes = struct.pack("=IIIII", 9, 4, 4, 1, 0) + bytes(100)  # BPF_MAP_TYPE_LRU_HASH
    made = ctypes.CDLL(None).syscall(number, 0, attributes, len(attributes))
    if made >= 0:
        os.close(made)
    return made >= 0


@pytest.mark.skipif(not may_load_programs(), reason="no eBPF here")
def test_old_flows_stay_with_the_old_generation_while_it_settles(kind, apps):
    port = free_port()
    old = [client() for _ in range(30)]
    options = ("--workers", WORKERS, "--timeout", 10, "--drain-settle", 600)
    with Running(*options, *command(kind, port), cwd=apps) as running:
        began = running.wait_each("ready", WORKERS)
        first = workers(old, port)
        edit(
            apps / ("udp_node.js" if kind == "node" else "udp_server.py"),
            'VERSION = "1"',
            'VERSION = "2"',
        )
        assert running.reload()["ok"]
        new = [client() for _ in range(30)]
        assert {ask(sock, port)["version"] for sock in new} == {"2"}
        assert {ask(sock, port)["version"] for sock in old} == {"1"}
        assert workers(old, port) == first

        for slot, event in began.items():  # and when it is gone, with the new one
            os.kill(event["pid"], signal.SIGKILL)
            running.wait_for("exit", slot=slot, generation=1)
        assert {ask(sock, port)["version"] for sock in old + new} == {"2"}
    for sock in old + new:
        sock.close()


def test_scaling_moves_the_flows_of_the_slot_that_goes(apps):
    port = free_port()
    clients = [client() for _ in range(60)]
    with Running("--workers", 3, "--timeout", 5, *command("asyncio", port), cwd=apps) as running:
        running.wait_each("ready", 3)
        first = workers(clients, port)
        running.signal(signal.SIGTTOU)
        running.wait_for("exit", slot=2)
        second = workers(clients, port)
        assert all(now == was for was, now in zip(first, second, strict=True) if was != "2")
        assert "2" not in second
    for sock in clients:
        sock.close()


def test_a_second_cluster_is_address_in_use(apps):
    port = free_port()
    with Running("--workers", 1, *command("asyncio", port), cwd=apps) as first:
        first.wait_for("ready")
        args = ("--workers", 1, "--give-up", 1, *command("socketserver", port))
        with Running(*args, cwd=apps) as second:
            assert second.wait() == 1
            assert "Address already in use" in second.stderr()
        with client() as sock:
            assert ask(sock, port)["worker"] == "0"
