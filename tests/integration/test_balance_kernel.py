"""round_robin and least_connections in the kernel, with real servers. Skipped where
CAP_BPF (and CAP_NET_ADMIN for the second) is missing.

Who has a connection is asked in two ways: of the kernel's own counts (status), and
of the workers, each of which says its name in its answer.
"""

import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from clients import connect, get, read_answer, send_request
from harness import ENVIRONMENT, Running, unstamped, until

from recluster import _engine
from recluster.control import asking

FAST = ("--respawn", 0, "--timeout", 20, "--drain-settle", 0.2, "--log", "no")
SERVERS = {
    "asyncio": ("sys", "asyncio_server.py 0"),
    "http_server": ("sys", "http_server.py 0"),
    "uvloop": ("uvloop", "-m uvicorn --loop uvloop --log-level error --port 0 asgi_app:app"),
    "node": ("node", "-- node node_server.js 0"),
}
WORKERS = 4


def refused(policy):
    engine = _engine.Engine()
    try:
        engine.balance(policy)
        return engine.balance_kernel()
    finally:
        engine.close()


REFUSED = {policy: refused(policy) for policy in ("round_robin", "least_connections")}


@pytest.fixture(params=SERVERS)
def command(request):
    needs, args = SERVERS[request.param]
    if not (shutil.which(needs) or importlib.util.find_spec(needs)):
        pytest.skip(f"{needs} is not installed")
    return args.split()


@pytest.fixture
def start(apps, tmp_path):
    def made(policy, command, *options, workers=WORKERS):
        if REFUSED[policy]:
            pytest.skip(f"no {policy} in the kernel here: {REFUSED[policy][0]}")
        control = tmp_path / "control"
        args = ("--balance", policy, "--balance-by", "kernel", "--control", control)
        running = Running("--workers", workers, *FAST, *args, *options, *command, cwd=apps)
        running.status = lambda: asking.ask({"cmd": "status"}, None, str(control), 10.0)["status"]
        return running

    return made


def counts(running, generation=None):
    """slot: connections, of the lanes that may be chosen, as the kernel counts."""
    found = {}
    for lane in running.status()["lanes"]:
        if lane["live"] and generation in (None, lane["generation"]):
            found[lane["slot"]] = found.get(lane["slot"], 0) + lane["connections"]
    return found


def uneven(found):
    return max(found.values()) - min(found.values())


class Held:
    """Connections that say nothing until they are asked who has them."""

    def __init__(self, port):
        self.port, self.all = port, []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for connection in self.all:
            connection.close()

    def open(self, count):
        self.all += [connect(self.port) for _ in range(count)]

    def burst(self, count):
        fresh = [socket.socket() for _ in range(count)]
        for one in fresh:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
        for one in fresh:
            assert select.select([], [one], [], 30)[1]
            one.settimeout(30)
        self.all += fresh

    def ask(self):
        """worker: how many of the connections it answers; they are over then."""
        for connection in self.all:
            send_request(connection)
        answers = [read_answer(connection) for connection in self.all]
        for connection in self.all:
            connection.close()
        self.all.clear()
        names = [int(answer["worker"]) for answer in answers]
        return {slot: names.count(slot) for slot in range(WORKERS)}


# ---- round robin ---------------------------------------------------------------------


def visits(port, count, clients=4):
    """worker: answers, of so many connections from a few threads."""
    found = [[] for _ in range(clients)]

    def client(mine):
        for _ in range(count // clients):
            mine.append(int(get(port)["worker"]))

    threads = [threading.Thread(target=client, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [name for mine in found for name in mine]
    assert len(names) == count
    return {slot: names.count(slot) for slot in range(WORKERS)}


def test_round_robin_is_exact(start, command):
    with start("round_robin", command) as running:
        running.wait_each("ready", WORKERS)
        count = 20_000 if "asyncio_server.py" in command else 1_000
        assert uneven(visits(running.port, count)) <= 1
        assert running.status()["balance"] == "round_robin in the kernel"
        assert "recluster: new connections: round_robin in the kernel" in running.log()
        assert running.reload()["ok"]
        assert uneven(visits(running.port, 400)) <= 1


def test_round_robin_over_ipv6(start, apps):
    source = (apps / "asyncio_server.py").read_text().replace('"127.0.0.1"', '"::1"')
    (apps / "six.py").write_text(source)

    def ask(port):
        with socket.create_connection(("::1", port), 30) as connection:
            send_request(connection)
            return read_answer(connection)

    with start("round_robin", ["six.py", "0"]) as running:
        running.wait_each("ready", WORKERS)
        names = [int(ask(running.port)["worker"]) for _ in range(80)]
        assert {names.count(slot) for slot in range(WORKERS)} == {20}


# ---- least connections -----------------------------------------------------------------


def test_a_burst_is_spread(start, command):
    with start("least_connections", command) as running, Held(running.port) as held:
        running.wait_each("ready", WORKERS)
        held.burst(40)
        until(lambda: sum(counts(running).values()) == 40)
        assert uneven(counts(running)) <= 3
        assert uneven(held.ask()) <= 3
        until(lambda: not any(counts(running).values()))
        assert running.status()["balance"] == "least_connections in the kernel"


def test_what_half_the_workers_lose_comes_back_to_them(start, command):
    with start("least_connections", command) as running, Held(running.port) as held:
        running.wait_each("ready", WORKERS)
        of_worker = {}
        for at in range(40):
            before = counts(running)
            held.open(1)
            after = until(lambda at=at: sum((now := counts(running)).values()) == at + 1 and now)
            of_worker[held.all[-1]] = next(slot for slot in after if after[slot] > before[slot])
        assert uneven(counts(running)) <= 1
        for connection in [one for one in held.all if of_worker[one] in (1, 3)]:
            held.all.remove(connection)
            connection.close()
        until(lambda: sum(counts(running).values()) == 20)
        held.open(20)
        until(lambda: sum(counts(running).values()) == 40)
        assert set(counts(running).values()) == {10}
        assert set(held.ask().values()) == {10}


def test_a_crash_leaves_no_skew(start, command):
    """Two workers are killed with their connections; their successors begin at none,
    and the next connections level it."""
    with start("least_connections", command) as running, Held(running.port) as held:
        first = running.wait_each("ready", WORKERS)
        held.open(40)
        until(lambda: set(counts(running).values()) == {10})
        for slot in (0, 2):
            os.kill(first[slot]["pid"], signal.SIGKILL)
        running.wait_each("ready", (0, 2))
        gone = [one for one in held.all if select.select([one], [], [], 0)[0]]
        until(lambda: sum(counts(running).values()) <= 40 - len(gone))
        for one in gone:
            held.all.remove(one)
            one.close()
        # In a lane's queue a connection outlives its worker: the heir has it.
        left = until(lambda: len(now := counts(running)) == WORKERS and now)
        held.open(60 - sum(left.values()))
        until(lambda: sum(counts(running).values()) == 60)
        assert set(counts(running).values()) == {15}
        assert sum(left.values()) == len(held.all) - (60 - sum(left.values()))
        assert set(held.ask().values()) == {15}


def test_a_generation_that_drains_does_not_count(start, command):
    with start("least_connections", command) as running, Held(running.port) as held:
        running.wait_each("ready", WORKERS)
        held.open(6)  # two workers have one more
        assert running.reload()["ok"]
        old = list(held.all)
        held.all.clear()
        held.open(4)
        until(lambda: sum(counts(running, 2).values()) == 4)
        assert set(counts(running, 2).values()) == {1}
        held.open(8)
        until(lambda: sum(counts(running, 2).values()) == 12)
        assert set(counts(running, 2).values()) == {3}
        assert set(held.ask().values()) == {3}
        held.all += old
        held.ask()


def test_256_slots(start, apps):
    (apps / "many.py").write_text(
        "import os, socket, time\n"
        "sock = socket.socket()\n"
        "sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "sock.bind(('127.0.0.1', 0))\n"
        "sock.listen()\n"
        "kept = []\n"
        "while True:\n"
        "    kept.append(sock.accept())\n"
    )
    with start("least_connections", ["many.py"], workers=256) as running:
        running.wait_each("ready", 256, timeout=90)
        with Held(running.port) as held:
            held.open(512)
            until(lambda: set(counts(running).values()) == {2})
            assert len(counts(running)) == 256


# ---- refusal -----------------------------------------------------------------------------

DENY = Path(__file__).parent.parent / "deny.py"


def test_without_the_privilege_it_says_so(apps):
    command = [sys.executable, str(DENY), "bpf", "--", sys.executable, "-m", "recluster"]
    command += ["--balance", "round_robin", "--balance-by", "kernel", "asyncio_server.py", "0"]
    done = subprocess.run(
        command, cwd=apps, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    why = "is refused by the kernel here (bpf: Operation not permitted)"
    assert unstamped(done.stderr).splitlines()[-1] == f"recluster: balance round_robin {why}"
