"""round_robin and least_connections by dispatch: exact, for every server, none lost.

A worker is passed its connections by SCM_RIGHTS, and the preload library receives them:
that of the master in one that is forked, its own in one that is exec'd. Without the library
it accepts for itself, by chance and not in turn, and nothing is lost either.
"""

import json
import os
import shutil
import signal
import socket
import struct
import sys
from collections import Counter

import deny
import pytest
from clients import GENEROUS, Load, answers, connect, get, read_answer, send_request
from harness import Running, free_port, stop, until
from test_servers import SERVERS

from recluster import _engine

# By dispatch, whatever privilege there is.
FAST = ("--balance-by", "dispatch", "--drain-settle", 0.2, "--respawn", 0)
BALANCES = ("round_robin", "least_connections")
IN_TURN = ("forked", "exec'd", "preload")
WAYS = (*IN_TURN, "alone")
HOW = dict.fromkeys(IN_TURN, "dispatch (SCM_RIGHTS)") | {"alone": "reuseport: "}


def words(way, name, *args):
    if way == "alone" and _engine.door_probe():
        pytest.skip("no seccomp notification here")
    command = () if way in ("forked", "preload") else ("--", sys.executable)
    door = {"alone": ("--door", "notify"), "preload": ("--door", "preload")}.get(way, ())
    return (*door, *command, name, *args)


def running(apps, way, name, *args, balance="round_robin", workers=2):
    options = ("--workers", workers, "--balance", balance, *FAST)
    return Running(*options, *words(way, name, *args), cwd=apps)


def warmed(port, workers, ask=get):
    """Until each worker has answered (gunicorn listens before its own workers have
    booted), and those that were late have caught up."""
    answered = set()
    until(lambda: answered.add(ask(port)["worker"]) or len(answered) == workers)
    answers(port, 40 * workers, ask)


def even(counts, workers, within=1):
    return len(counts) == workers and max(counts.values()) - min(counts.values()) <= within


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize(
    "name",
    ["http_server", "asyncio", "aiohttp", "tornado", "uvicorn_uvloop", "granian", "gunicorn",
     "gunicorn_workers", "hypercorn", "node"],
)  # fmt: skip
def test_every_server_gets_its_part(apps, name, balance):
    server = SERVERS[name]
    if server.needs != "node":
        pytest.importorskip(server.needs)
    port = str(free_port() if server.port is None else 0)
    args = [word.replace("PORT", port) for word in server.args]
    with Running("--workers", 4, "--balance", balance, *FAST, *args, cwd=apps) as cluster:
        cluster.wait_each("ready", 4)
        warmed(cluster.port, 4, server.ask)
        counts = Counter(answer["worker"] for answer in answers(cluster.port, 80, server.ask))
        # Keep-alive of its own, or a slow close, may let counts differ a little.
        assert even(counts, 4, within=1 if balance == "round_robin" else 4), counts
        assert cluster.end() == 0


@pytest.mark.core
@pytest.mark.parametrize("way", WAYS)
def test_exact_under_load(apps, way):
    """Sixteen clients at a time; when all is answered the counts differ by one."""
    with running(apps, way, "asyncio_server.py", "0", workers=4) as cluster:
        cluster.wait_each("ready", 4)
        with Load(cluster.port, clients=16, limit=2000) as load:
            load.more(1000)
        assert not load.failures()
        answers(cluster.port, 16)  # what somebody has missed he gets now
        counts = Counter(answer.facts["worker"] for answer in load.answers)
        assert len(counts) == 4 if way == "alone" else even(counts, 4, within=4), counts
        assert f"new connections: round_robin by {HOW[way]}" in cluster.stderr()


@pytest.mark.parametrize("name", ["node", "uvicorn_uvloop", "granian"])
def test_what_accepts_in_c_receives_too_if_it_is_exec_d(apps, name):
    server = SERVERS[name]
    places = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    path = shutil.which(server.needs, path=places)
    if not path:
        pytest.skip(f"{server.needs} is not installed")
    args = [word.replace("PORT", str(free_port())) for word in server.args[2:]]
    args[:0] = ["--", path]
    with Running("--workers", 2, "--balance", "round_robin", *FAST, *args, cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        warmed(cluster.port, 2, server.ask)
        counts = Counter(answer["worker"] for answer in answers(cluster.port, 40, server.ask))
        assert even(counts, 2), counts
        assert "by dispatch (SCM_RIGHTS)" in cluster.stderr()
        assert cluster.end() == 0


@pytest.mark.core
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["4", "6", "dual"])
def test_names_and_families(apps, way, kind):
    host = {"4": "127.0.0.1", "6": "::1", "dual": "127.0.0.1"}[kind]
    if kind != "4":
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    with running(apps, way, "names_server.py", kind, "0") as cluster:
        cluster.wait_each("ready", 2)
        for _ in range(4):
            with socket.create_connection((host, cluster.port), GENEROUS) as client:
                data = b""
                while piece := client.recv(4096):
                    data += piece
                facts = json.loads(data)
                ours, theirs = list(client.getsockname()), list(client.getpeername())
            if kind == "dual":
                ours = ["::ffff:" + ours[0], ours[1], 0, 0]
                theirs = ["::ffff:" + theirs[0], theirs[1], 0, 0]
            assert facts["accept"] == facts["peer"] == ours
            assert facts["name"] == theirs
            assert facts["listener"][1] == cluster.port
            assert facts["family"] == (socket.AF_INET if kind == "4" else socket.AF_INET6)
            assert facts["blocking"] and not facts["inheritable"] and facts["nodelay"]
        assert cluster.end() == 0


@pytest.mark.parametrize("denied", [[], ["kcmp"]])
def test_each_listener_gets_its_own_whatever_its_number(apps, denied):
    ports = free_port(), free_port()
    options = ("--workers", 2, "--balance", "round_robin", *FAST)
    command = words("trapped", "swaps_numbers.py", *ports)
    with Running(*options, *command, cwd=apps, preexec_fn=lambda: deny.install(denied)) as cluster:
        cluster.wait_each("ready", 2)
        for port in ports * 8:
            with connect(port) as client:
                assert client.recv(100) == f"{port} {port}".encode()
        assert cluster.end() == 0


@pytest.mark.core
@pytest.mark.parametrize("way", WAYS)
def test_accept_behaves_as_ever(apps, way):
    options = (
        "--workers",
        1,
        "--balance",
        "round_robin",
        "--ready-when",
        "ready",
        *FAST,
    )
    with Running(*options, *words(way, "accept_semantics.py", "0"), cwd=apps) as cluster:
        said = cluster.wait_for("message", where=lambda event: "interrupted" in event["message"])
        assert said["message"] == {
            "non-blocking": "BlockingIOError",
            "timeout": "TimeoutError",
            "interrupted": "Alarm",
        }
        cluster.wait_for("ready")
        pid = cluster.pids()[0]
        for _ in range(3):
            with connect(cluster.port) as client:
                assert client.recv(64) == str(pid).encode()
        found = cluster.wait_for("message", where=lambda event: "blocking" in event["message"])
        assert found["message"] == dict.fromkeys(
            ("non-blocking", "timeout", "blocking"), "127.0.0.1 True"
        )


@pytest.mark.core
@pytest.mark.parametrize("way", IN_TURN)
def test_a_hung_worker_keeps_nothing_from_anybody(apps, way):
    """What it was given and has not taken goes to the other, also when it dies."""
    with running(apps, way, "asyncio_server.py", "0") as cluster:
        cluster.wait_each("ready", 2)
        answers(cluster.port, 4)
        hung = cluster.pids()[0]
        stop(hung)
        assert {answer["worker"] for answer in answers(cluster.port, 20)} == {"1"}
        os.kill(hung, signal.SIGCONT)
        with Load(cluster.port, clients=8) as load:
            load.more(40)
            os.kill(hung, signal.SIGKILL)
            cluster.wait_for("exit", pid=hung)
            cluster.wait_for("ready", slot=0)
            load.more(40)
        assert len(load.failures()) <= 8  # what the killed one had accepted
        warmed(cluster.port, 2)
        counts = Counter(answer["worker"] for answer in answers(cluster.port, 40))
        assert even(counts, 2, within=2), counts
        assert cluster.end() == 0


@pytest.mark.core
@pytest.mark.parametrize("way", WAYS)
def test_reload_and_shutdown_lose_nothing(apps, way):
    with running(apps, way, "asyncio_server.py", "0") as cluster:
        cluster.wait_each("ready", 2)
        with Load(cluster.port, clients=8) as load:
            load.more(40)
            for generation in (2, 3):
                old = cluster.pids()
                assert cluster.reload()["ok"]
                load.more(20)
                for pid in old.values():
                    cluster.wait_for("exit", pid=pid)
                assert not set(cluster.pids().values()) & set(old.values()), generation
        assert not load.failures()
        workers = cluster.pids().values()
        for pid in workers:
            stop(pid)
        waiting = []
        for _ in range(20):
            client = connect(cluster.port)
            send_request(client)
            waiting.append(client)
        cluster.signal(signal.SIGTERM)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert {read_answer(client)["pid"] for client in waiting} <= set(workers)
        assert cluster.wait() == 0


@pytest.mark.parametrize("path", ["/shutdown", "/close"])
@pytest.mark.parametrize("way", WAYS)
def test_a_listener_that_is_given_up_is_noticed(apps, way, path):
    """It may be an end of a pair: shut down, the lane goes as the listener would; closed, it is
    the successor's, who is proved by a connection in it."""
    with running(apps, way, "stops_listening.py", "0") as cluster:
        first = {event["pid"] for event in cluster.wait_each("ready", 2).values()}
        with Load(cluster.port, clients=8) as load:
            load.more(40)
            old = get(cluster.port, path)["pid"]
            if path == "/close":
                load.more(8)  # it is found out by one that is not taken
            assert cluster.wait_for("deaf")["pid"] == old
            cluster.wait_for("ready", where=lambda event: event["pid"] not in first)
            cluster.wait_for("exit", pid=old)
            load.more(40)
        assert len(load.failures()) <= 8  # what it had accepted
        pids, answered = set(cluster.pids().values()), set()
        until(lambda: answered.add(get(cluster.port)["pid"]) or answered == pids)
        assert cluster.end() == 0


def held(port, count, linger=False):
    """So many connections that stay open, by worker."""
    found = []
    for _ in range(count):
        client = connect(port)
        if linger:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        found.append((client.recv(16).decode().strip(), client))
    return found


def count(connections):
    return Counter(worker for worker, _ in connections)


def let_go(connections):
    for _, client in connections:
        with client:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(16) == b""


@pytest.mark.core
@pytest.mark.parametrize("way", IN_TURN)
def test_least_connections_levels(apps, way):
    args = ("holds_connections.py", "0")
    with running(apps, way, *args, balance="least_connections", workers=4) as cluster:
        cluster.wait_each("ready", 4)
        open_ = held(cluster.port, 40)
        assert even(count(open_), 4), count(open_)
        let_go([one for one in open_ if one[0] in "01"])
        open_ = [one for one in open_ if one[0] in "23"]
        open_ += held(cluster.port, 24)
        assert even(count(open_), 4), count(open_)
        # At once, and a reset is a close as any other.
        burst = [connect(cluster.port) for _ in range(40)]
        open_ += [(client.recv(16).decode().strip(), client) for client in burst]
        assert even(count(open_), 4, within=3), count(open_)
        for _, client in held(cluster.port, 10, linger=True):
            client.close()
        for _ in range(10):
            connect(cluster.port).close()
        open_ += held(cluster.port, 8)
        assert even(count(open_), 4, within=3), count(open_)
        # A crash: its connections are gone, and its successor gets the next ones.
        killed = cluster.pids()[1]
        os.kill(killed, signal.SIGKILL)
        cluster.wait_for("exit", pid=killed)
        cluster.wait_for("ready", slot=1, where=lambda event: event["pid"] != killed)
        gone = [one for one in open_ if one[0] == "1"]
        open_ = [one for one in open_ if one[0] != "1"]
        fresh = held(cluster.port, len(gone))
        assert count(fresh).most_common(1)[0][0] == "1"
        open_ += fresh
        assert even(count(open_), 4, within=3), count(open_)
        for _, client in open_ + gone:
            client.close()
        assert cluster.end() == 0


def test_a_python_listener_that_c_code_accepts_from(apps):
    """gunicorn listens in Python, and its uvloop workers accept in C."""
    for name in ("gunicorn", "uvicorn.workers", "uvloop"):
        pytest.importorskip(name)
    port = free_port()
    args = ("-m", "gunicorn", "-k", "uvicorn.workers.UvicornWorker", "-b", f"127.0.0.1:{port}")
    args += ("--log-level", "error", "asgi_app:app")
    with Running("--workers", 2, "--balance", "round_robin", *FAST, *args, cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        warmed(port, 2)
        counts = Counter(get(port)["worker"] for _ in range(20))
        assert even(counts, 2), counts
