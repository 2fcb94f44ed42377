"""Who gets a new connection: each policy with real servers, through reload, crash and scale.

Clients come from many addresses of 127/8, for `source_ip`.
"""

import collections
import importlib.util
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from clients import Broken, Load, read_answer, send_request
from ctlcase import ask as ctl
from ctlcase import status_of
from harness import GENEROUS, Running, descendants, edit, free_port, stop, until
from test_lanes_live import queue, read_all

import recluster

FAST = ("--respawn", 0, "--timeout", 20, "--drain-settle", 0.2)
POLICIES = ("shared", "reuseport", "source_ip", "weighted")
SERVERS = {
    "http_server": ("sys", "http_server.py 0"),
    "asyncio": ("sys", "asyncio_server.py 0"),
    "uvloop": ("uvloop", "-m uvicorn --loop uvloop --log-level error --port 0 asgi_app:app"),
    "gunicorn": ("gunicorn", "-m gunicorn -w 2 -b 127.0.0.1:0 --log-level error wsgi_app:app"),
    "granian": ("granian", "-m granian --workers 2 --interface asgi --port PORT --log-level error "
                "asgi_app:app"),
    "node": ("node", "-- node node_server.js 0"),
}  # fmt: skip
FILES = {"-m gunicorn": "wsgi_app.py", "-m": "asgi_app.py", "--": "node_server.js"}
sources = itertools.count()


@pytest.fixture(params=SERVERS)
def command(request):
    needs, args = SERVERS[request.param]
    if not (shutil.which(needs) or importlib.util.find_spec(needs)):
        pytest.skip(f"{needs} is not installed")
    return args.replace("PORT", str(free_port())).split()


def file_of(command):
    words = " ".join(command[:2])
    return FILES.get(words, FILES.get(command[0], command[0]))


def ask(port, source=None):
    """One request, from an address of its own."""
    if source is None:
        at = next(sources)
        source = f"127.{1 + at // 40000 % 100}.{at // 200 % 200}.{1 + at % 200}"
    with socket.create_connection(("127.0.0.1", port), GENEROUS, (source, 0)) as connection:
        try:
            send_request(connection)
        except ConnectionError as error:
            raise Broken(repr(error)) from error
        return read_answer(connection)


def workers(port, count=80):
    return collections.Counter(ask(port)["worker"] for _ in range(count))


def versions(port, count):
    return collections.Counter(ask(port)["version"] for _ in range(count))


def near(count, total, part):
    """Within six standard deviations."""
    return abs(count - total * part) <= 6 * (total * part * (1 - part)) ** 0.5


def comes_near(ask, total, part):
    """In one of some rounds: who stands still for a moment is avoided, and on a loaded
    machine that moves a good part of a round to the others."""
    return any(near(ask(), total, part) for _ in range(6))


def crash(running, slot):
    """Kill it, and wait for its successor."""
    killed, before = running.pids()[slot], {event.get("pid") for event in running.seen}
    os.kill(killed, signal.SIGKILL)
    running.wait_for("exit", pid=killed)
    running.wait_for("ready", slot=slot, where=lambda event: event["pid"] not in before)


# ---- every policy, every server ------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_reload_crash_and_scale_lose_nothing(policy, command, apps):
    options = ("--workers", 3, "--balance", policy, *FAST)
    with Running(*options, *command, cwd=apps) as running:
        old = {event["pid"] for event in running.wait_each("ready", 3).values()}
        if policy != "shared":
            assert set(workers(running.port)) == {"0", "1", "2"}
        with Load(running.port, ask, clients=8) as load:
            load.more(30)
            edit(apps / file_of(command), 'VERSION = "1"', 'VERSION = "2"')
            assert running.reload(60)["ok"]
            cutover = running.seen[-1]["seen"]
            for pid in old:
                running.wait_for("exit", 60, pid=pid)
            load.more(30)
            running.signal(signal.SIGTTIN)
            running.wait_for("ready", slot=3)
            load.more(30)
            for slot in (3, 2):
                going = running.pids()[slot]
                running.signal(signal.SIGTTOU)
                running.wait_for("exit", 60, slot=slot, pid=going)
                load.more(30)
            if policy == "shared":  # each was a reload
                assert running.wait_for("reload")["ok"] and running.wait_for("reload")["ok"]
            assert load.failures() == []
            assert {answer.facts["version"] for answer in load.since(cutover)} == {"2"}
            crash(running, 1)
            load.more(30)
            assert len(load.failures()) <= 8  # what it had accepted
            assert all(isinstance(answer.error, Broken) for answer in load.failures())
        assert running.end() == 0


# ---- shared -----------------------------------------------------------------------------------


@pytest.fixture
def shared(command, apps):
    options = ("--workers", 3, "--balance", "shared", *FAST)
    with Running(*options, *command, cwd=apps) as running:
        running.wait_each("ready", 3)
        yield running


def family(pid):
    stop(pid)
    below = descendants(pid)
    for one in below:
        stop(one)
    return [pid, *below]


def test_whoever_is_free_serves(shared):
    """Two of three are stopped: nobody waits for them."""
    port, pids = shared.port, shared.pids()
    for slot in (0, 1):
        family(pids[slot])
    assert workers(port, 40) == {"2": 40}


def test_a_queue_outlives_all_workers(shared):
    port, pids = shared.port, shared.pids()
    for pid in pids.values():
        family(pid)
    waiting = queue(port, 100)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    assert len(read_all(waiting)) == 100
    assert shared.end() == 0


def test_the_retired_serve_what_waits_for_them(shared, apps, command):
    """All are stopped with a full queue, a new generation takes over: the old one
    wakes, and accepts and answers before it leaves."""
    port, pids = shared.port, shared.pids()
    frozen = [pid for leader in pids.values() for pid in family(leader)]
    waiting = queue(port, 60)
    edit(apps / file_of(command), 'VERSION = "1"', 'VERSION = "2"')
    assert shared.reload()["ok"]
    assert versions(port, 20) == {"2": 20}
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    new = {one for pid in shared.pids().values() for one in (pid, *descendants(pid))}
    assert not {answer["pid"] for answer in read_all(waiting)} & new
    for pid in pids.values():
        shared.wait_for("exit", pid=pid)


def test_the_retired_die_with_a_full_queue(shared):
    """Others that can be rung at serve it; where they do not come at once, a worker of the old code
    that gets nothing new."""
    port, pids = shared.port, shared.pids()
    for pid in pids.values():
        family(pid)
    waiting = queue(port, 60)
    assert shared.reload()["ok"]
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    assert len(read_all(waiting)) == 60
    assert shared.count("online") - (3 + 3) in (0, 1)
    assert shared.end() == 0


def test_a_failed_scale_down_changes_nothing(apps):
    options = ("--workers", 3, "--balance", "shared", *FAST)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        before = {event["pid"] for event in running.wait_each("ready", 3).values()}
        (apps / "asyncio_server.py").write_text("import no_such_module\n")
        running.signal(signal.SIGTTOU)
        assert not running.wait_for("reload")["ok"]
        assert {ask(running.port)["pid"] for _ in range(60)} <= before
        assert running.count("exit", generation=1) == 0
        assert running.end() == 0


def test_surge_cannot_be_with_shared(apps):
    words = ["--balance", "shared", "--surge", "1", "http_server.py", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "recluster", *words], cwd=apps, capture_output=True, text=True
    )
    assert done.returncode == 2 and "surge" in done.stderr


# ---- source_ip ----------------------------------------------------------------------------------


def test_a_client_keeps_its_slot(apps):
    clients = [f"127.9.{at % 7}.{1 + at}" for at in range(120)]
    options = ("--workers", 4, "--balance", "source_ip", *FAST)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 4)
        port = running.port

        def homes():
            return {client: ask(port, client)["worker"] for client in clients}

        first = homes()
        assert set(first.values()) == {"0", "1", "2", "3"} and homes() == first
        assert running.reload()["ok"]
        assert homes() == first
        crash(running, 2)
        assert homes() == first
        running.signal(signal.SIGTTIN)
        running.wait_for("ready", slot=4)
        second = homes()
        moved = {client for client in clients if second[client] != first[client]}
        assert moved and {second[client] for client in moved} == {"4"}
        going = running.pids()[4]
        running.signal(signal.SIGTTOU)
        running.wait_for("exit", slot=4, pid=going)
        assert homes() == first


def test_the_clients_of_a_dead_slot_are_served_by_the_others(apps):
    clients = [f"127.9.{at % 7}.{1 + at}" for at in range(120)]
    options = ("--workers", 4, "--balance", "source_ip", "--respawn", 1000, *FAST[2:])
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 4)
        first = {client: ask(running.port, client)["worker"] for client in clients}
        killed = running.pids()[1]
        os.kill(killed, signal.SIGKILL)
        running.wait_for("exit", pid=killed)
        second = {client: ask(running.port, client)["worker"] for client in clients}
        moved = {client for client in clients if second[client] != first[client]}
        assert moved == {client for client in clients if first[client] == "1"}
        assert len({second[client] for client in moved}) == 3


# ---- weighted -----------------------------------------------------------------------------------


def test_weights_are_the_chances_and_can_change(apps, tmp_path):
    path = str(tmp_path / "ctl.sock")
    options = ("--workers", 2, "--balance", "weighted", "--weights", "0=3,1=1", "--control", path)
    with Running(*options, *FAST, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert comes_near(lambda: workers(running.port, 400)["0"], 400, 0.75)
        pid = running.process.pid
        assert ctl("--control", path, pid, "weights", "0=0")[:2] == (
            0, ["weights: 0=0, 1=1; 1 for other slots"])  # fmt: skip
        assert workers(running.port, 60) == {"1": 60}
        status = status_of(running, path)
        assert (status["balance"], status["weights"]) == ("weighted", {"0": 0, "1": 1})
        assert running.reload()["ok"]  # weights are the slots', not the workers'
        assert workers(running.port, 60) == {"1": 60}
        code, _, err = ctl("--control", path, pid, "weights", "1=0")
        assert code == 1 and "would be 0" in err[0]
        for words in ("1", "a=1", "1=-1", "1=nan", "=", "70000=1"):
            code, _, err = ctl("--control", path, pid, "weights", words)
            assert code == 1 and "must be SLOT=WEIGHT" in err[0]
        code, out, _ = ctl("--control", path, pid, "weights", "0=1", "1=1e3")
        assert code == 0 and "1=1000" in out[0]


def test_a_scale_that_leaves_nobody_is_refused(apps):
    options = ("--workers", 2, "--balance", "weighted", "--weights", "0=0,1=1")
    with Running(*options, *FAST, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        running.signal(signal.SIGTTOU)
        running.signal(signal.SIGTTIN)
        running.wait_for("ready", slot=2)
        assert any("would be 0" in line for line in running.log())
        assert running.count("exit") == 0


def test_weights_of_another_policy_are_refused(apps):
    cluster = recluster.Cluster(
        [sys.executable, "asyncio_server.py", "0"], cwd=str(apps), workers=1
    )
    with cluster, pytest.raises(recluster.OptionError, match="balance weighted"):
        cluster.weights({0: 1})


# ---- canary ------------------------------------------------------------------------------------


@pytest.fixture(params=POLICIES)
def canary(request, apps, tmp_path):
    """(running, ctl path) with a canary of 0.2 that serves."""
    path = str(tmp_path / "ctl.sock")
    options = ("--workers", 3, "--balance", request.param, "--control", path, *FAST)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 3)
        edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
        code, out, _ = ctl("--control", path, "reload", "--canary", "0.2", "--wait")
        assert (code, out) == (0, ["reload: generation 2 gets 0.2 of new connections"])
        assert running.wait_for("canary")["part"] == 0.2
        assert comes_near(lambda: versions(running.port, 500)["2"], 500, 0.2)
        assert status_of(running, path)["canary"] == {"generation": 2, "part": 0.2}
        yield running, path


def test_promote(canary):
    running, path = canary
    assert running.count("exit") == running.count("reload") == 0
    with Load(running.port, ask, clients=8) as load:
        load.more(20)
        assert ctl("--control", path, "promote")[:2] == (0, ["promote: done"])
        outcome = running.wait_for("reload")
        assert outcome["ok"] and outcome["generation"] == 2
        load.more(20)
        for _ in range(3):
            running.wait_for("exit")
    assert load.failures() == []
    assert versions(running.port, 60) == {"2": 60}
    code, _, err = ctl("--control", path, "promote")
    assert code == 1 and "no generation is on probation" in err[0]


def test_rollback(canary):
    running, path = canary
    with Load(running.port, ask, clients=8) as load:
        load.more(20)
        assert ctl("--control", path, "rollback")[0] == 0
        outcome = running.wait_for("reload")
        assert not outcome["ok"] and "rolled back" in outcome["why"]
        load.more(20)
        for _ in range(3):
            running.wait_for("exit", generation=2)
    assert load.failures() == []
    assert versions(running.port, 60) == {"1": 60}


def test_a_crash_of_a_canary_rolls_back(canary):
    running, _ = canary
    newest = running.pids()[1]
    os.kill(newest, signal.SIGKILL)
    outcome = running.wait_for("reload")
    assert not outcome["ok"] and "rolled back" in outcome["why"]
    assert versions(running.port, 60) == {"1": 60}


def test_a_crash_of_an_old_worker_leaves_the_share(canary):
    running, path = canary
    olds = [event["pid"] for event in running.seen if event["event"] == "online"][:3]
    os.kill(olds[0], signal.SIGKILL)
    running.wait_for("exit", pid=olds[0])
    if status_of(running, path)["balance"] != "source_ip":
        assert comes_near(lambda: versions(running.port, 400)["2"], 400, 0.2)
    for pid in olds[1:]:
        os.kill(pid, signal.SIGKILL)
    assert running.wait_for("reload")["ok"]  # there is nothing left to go back to
    assert versions(running.port, 40) == {"2": 40}


def test_a_newer_reload_rolls_the_canary_back_first(canary, apps):
    running, path = canary
    edit(apps / "asyncio_server.py", 'VERSION = "2"', 'VERSION = "3"')
    code, _, _ = ctl("--control", path, "reload", "--wait")
    assert code == 0
    first, second = running.wait_for("reload"), running.wait_for("reload")
    assert not first["ok"] and "superseded" in first["why"] and second["ok"]
    assert versions(running.port, 60) == {"3": 60}


def test_a_shutdown_ends_both(canary):
    running, _ = canary
    assert running.end() == 0
    assert running.count("exit") == 6


def test_a_canary_from_the_api(apps):
    cluster = recluster.Cluster(
        [sys.executable, "asyncio_server.py", "0"], cwd=str(apps), workers=2, drain_settle=0.1
    )
    ports, seen = [], []
    cluster.on("listening", lambda event: ports.append(int(event.address.rpartition(":")[2])))
    cluster.on("canary", lambda event: seen.append((event.generation, event.part)))
    with cluster:
        until_ready(cluster, 2)
        handle = cluster.reload(canary=0.5)
        with pytest.raises(RuntimeError, match="does not serve yet"):
            handle.promote()
        assert handle.wait_serving(GENEROUS) and handle.on_probation and not handle.done
        assert seen == [(2, 0.5)]
        handle.promote()
        assert handle.done and handle.ok
        with pytest.raises(RuntimeError):
            handle.rollback()
        second = cluster.reload(canary=0.5)
        second.rollback()
        assert second.done and not second.ok
        third = cluster.reload(canary=0.5)
        assert third.wait_serving(GENEROUS)
        cluster.rollback()
        assert third.done and not third.ok
        for part in (0, 1, -1, 2, "x", None, True):
            if part is not None:
                with pytest.raises(recluster.OptionError, match="canary"):
                    cluster.reload(canary=part)


def until_ready(cluster, count):
    def ready():
        cluster.wait(0.05)
        return sum(worker is not None for worker in cluster.active_workers().values()) == count

    until(ready)


# ---- several addresses -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_each_address_is_a_group_and_port_0_is_one_port(policy, apps):
    options = ("--workers", 3, "--balance", policy, *FAST)
    with Running(*options, "two_addresses.py", cwd=apps) as running:
        running.wait_each("ready", 3)
        count = 3 if socket.has_ipv6 else 2
        addresses = collections.defaultdict(set)
        for _ in range(3 * count):
            event = running.wait_for("listening")
            addresses[event["slot"]].add(event["address"])
        assert len(addresses[0]) == count and addresses[0] == addresses[1] == addresses[2]
        for address in addresses[0]:
            host, _, port = address.rpartition(":")
            found = set()
            for _ in range(60):
                kind = socket.AF_INET6 if "[" in host else socket.AF_INET
                with socket.socket(kind) as client:
                    client.settimeout(GENEROUS)
                    if kind == socket.AF_INET:
                        client.bind((f"127.3.1.{random.randint(1, 250)}", 0))
                    client.connect((host.strip("[]"), int(port)))
                    send_request(client)
                    facts = read_answer(client)
                    assert facts["port"] == int(port)
                    found.add(facts["worker"])
            alone = policy == "shared" or (policy == "source_ip" and "[" in host)
            assert len(found) == 3 or alone
        assert running.reload()["ok"]
        for address in addresses[0]:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), GENEROUS) as client:
                send_request(client)
                read_answer(client)
        assert running.end() == 0
