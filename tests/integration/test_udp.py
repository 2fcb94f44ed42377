"""UDP servers: shared, a flow stays with its worker, reload, crash."""

import json
import os
import shutil
import signal
import socket

import deny
import pytest
from clients import GENEROUS
from ebpf import may_load_programs
from harness import Running, edit, free_port, stop, until

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


def all_serve(running, count):
    """Each is ready, and its lane gets its flows: the first is told before the second is done."""
    ready = running.wait_each("ready", count)
    until(lambda: sum(lane["live"] for lane in running.status()["lanes"]) >= count)
    return ready


def workers(clients, port):
    return [ask(sock, port)["worker"] for sock in clients]


def test_flows_stay_move_at_reload_and_survive(kind, apps):
    port = free_port()
    clients = [client() for _ in range(40)]
    # Without settling flows move at once, also where the kernel could keep them.
    options = ("--workers", WORKERS, "--respawn", 0.1, "--timeout", 10, "--drain-settle", 0)
    with Running(*options, *command(kind, port), cwd=apps) as running:
        all_serve(running, WORKERS)
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


@pytest.mark.skipif(not may_load_programs(), reason="no eBPF here")
def test_old_flows_stay_with_the_old_generation_while_it_settles(kind, apps):
    port = free_port()
    old = [client() for _ in range(30)]
    options = ("--workers", WORKERS, "--timeout", 10, "--drain-settle", 600)
    with Running(*options, *command(kind, port), cwd=apps) as running:
        began = all_serve(running, WORKERS)
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
        all_serve(running, 3)
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


# ---- a socket for each peer ------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("kind", ["close", "keep"])
def test_a_server_with_a_socket_for_each_peer(apps, kind, host):
    """What the master kept of it would take what the peer sends next, and nobody reads it."""
    port = free_port()
    clients = [client() for _ in range(30)]
    with Running("--workers", 2, "udp_peers.py", port, kind, host, cwd=apps) as running:
        all_serve(running, 2)
        first = [ask(sock, port, "0") for sock in clients]
        assert {facts["worker"] for facts in first} == {"0", "1"}
        for text in "123":
            assert [ask(sock, port, text)["worker"] for sock in clients] == [
                facts["worker"] for facts in first
            ]
        assert len(running.status()["lanes"]) == 2
        if kind == "keep":  # they are in the kernel's group no more, and steering is right
            with client() as sock:
                assert ask(sock, port)["worker"] in "01"
            os.kill(running.pids()[0], signal.SIGKILL)
            running.wait_for("exit", slot=0)
            running.wait_for("ready", slot=0)
            until(lambda: all(lane["live"] for lane in running.status()["lanes"]))
            new = [client() for _ in range(30)]
            assert {ask(sock, port)["worker"] for sock in new} == {"0", "1"}
            for sock in new:
                sock.close()
    for sock in clients:
        sock.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_sockets_for_a_peer_where_a_container_denies_to_look(apps, host):
    """No seccomp door, no pidfd_getfd: the preload library says what is connected."""
    port = free_port()
    denied = ["pidfd_getfd", "bpf", "process_vm_readv"]
    clients = [client() for _ in range(30)]
    command = ("--workers", 2, "udp_peers.py", port, "close", host)
    with Running(*command, cwd=apps, preexec_fn=lambda: deny.install(denied)) as running:
        all_serve(running, 2)
        assert running.status()["door"] == "preload"
        first = [ask(sock, port, "0")["worker"] for sock in clients]
        assert set(first) == {"0", "1"}
        for text in "123":
            assert {ask(sock, port, text)["worker"] for sock in clients} <= {"0", "1"}
        assert len(running.status()["lanes"]) == 2
    for sock in clients:
        sock.close()


def test_several_sockets_for_all_are_a_lane_each(apps):
    port = free_port()
    clients = [client() for _ in range(200)]
    with Running("--workers", 2, "udp_peers.py", port, "many", cwd=apps) as running:
        all_serve(running, 2)
        until(lambda: len(running.status()["lanes"]) == 6)
        used = {(facts["worker"], facts["socket"]) for facts in (ask(s, port) for s in clients)}
        assert used == {(worker, number) for worker in "01" for number in range(3)}
    for sock in clients:
        sock.close()


def test_the_socket_for_all_is_bound_again_while_those_for_a_peer_are_open(apps):
    port = free_port()
    command = ("--workers", 1, "udp_peers.py", port, "again")
    with client() as first, client() as second, Running(*command, cwd=apps) as running:
        running.wait_for("ready")
        own = ask(first, port)["socket"]
        assert json.loads(first.recv(999))["echo"] == "again"
        assert ask(second, port)["socket"] != own
        assert ask(first, port)["socket"] == own


def test_a_lane_that_is_connected_is_given_up(apps):
    port = free_port()
    command = ("--workers", 1, "udp_peers.py", port, "only")
    with client() as first, client() as second, Running(*command, cwd=apps) as running:
        running.wait_for("ready")
        for text in "0123":
            for sock in (first, second):
                assert ask(sock, port, text)["worker"] == "0"
                assert json.loads(sock.recv(999))["echo"] == "again"
