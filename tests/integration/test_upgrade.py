"""`recluster upgrade`: another version in the same process, and workers that do not notice.

UPGRADES=100 for so many in a row under load.
"""

import contextlib
import importlib.util
import os
import re
import resource
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from askers import Asking
from clients import (
    Broken,
    KeepAlive,
    Load,
    all_answer,
    connect,
    get,
)
from ctlcase import ask
from embedcase import BEGIN  # noqa: F401 - the fixture's
from harness import (
    GENEROUS,
    Pidfd,
    descendants,
    edit,
    free_port,
    kept,
    links,
    survivors,
    until,
)
from keptcase import KEEPS
from upgradecase import NEXT, Installed, asked, flow, opened, start, told, upgrade

MANY = int(os.environ.get("UPGRADES", "20"))


@pytest.fixture
def installed(tmp_path):
    return Installed(tmp_path / "site")


@pytest.fixture
def running(apps):
    with start(apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


def facts(pid):
    process = Path(f"/proc/{pid}")
    environ = sorted((process / "environ").read_bytes().split(b"\0"))
    return (process / "cmdline").read_bytes(), [
        one for one in environ if not one.startswith((b"RECLUSTER_SUCCEEDS=", b"LD_PRELOAD="))
    ]


def kinds(pid):
    """What its descriptors are, and how many of each."""
    return Counter(re.sub(r"\[\d+\]", "", link) for link in kept(pid))


# ---- what goes on ------------------------------------------------------------------------


def test_another_version_takes_over_and_all_else_is_as_it_was(apps, installed):
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        pid, before, workers = running.process.pid, facts(running.process.pid), running.pids()
        inode = os.stat(f"/proc/{pid}/exe").st_ino
        installed.next_version()
        done = upgrade(running)
        assert done["to_version"] == running.status()["version"] == NEXT
        assert done["from_version"] != NEXT and done["seconds"] > 0
        assert running.pids() == workers and set(running.states().values()) == {"serving"}
        assert facts(pid) == before and os.stat(f"/proc/{pid}/exe").st_ino == inode
        all_answer(running.port, set(workers.values()))
        assert running.count("exit") == 0 and running.count("online") == 2


def test_a_kept_connection_goes_on(apps):
    with start(apps, target=("keeps_alive.py", "0")) as running:
        running.wait_each("ready", 2)
        with KeepAlive(running.port) as connection:
            before = connection.ask()
            upgrade(running)
            assert connection.ask()["pid"] == before["pid"]


def test_workers_of_before_are_still_given_connections_of_others(apps):
    """They know the page of bells of the master before; this one rings in the same."""
    (apps / "keeps.py").write_text(KEEPS["asyncio"])
    with start(apps, target=("keeps.py", "0")) as running:
        running.wait_each("ready", 2)
        with Asking(running.port, 4) as asking:  # that they speak HTTP/1 is seen in a reload
            asking.all_have("1")
            assert running.reload()["ok"]
            for old in range(2):
                running.wait_for("exit", slot=old)
            assert asking.errors == []
        for _ in range(2):
            upgrade(running)
        pids = running.pids()
        with contextlib.ExitStack() as stack:
            kept_by = [stack.enter_context(KeepAlive(running.port)) for _ in range(8)]
            at_first = {one: one.ask()["pid"] for one in kept_by}
            assert set(at_first.values()) == set(pids.values())
            slots = running.status()["slots"]
            assert all(one["receives"] for slot in slots for one in slot["workers"])
            assert ask(running.process.pid, "drain", 0)[0] == 0
            running.wait_for("exit", pid=pids[0])
            assert {one.ask()["pid"] for one in kept_by} == {pids[1]}


def test_afterwards_it_reloads_scales_respawns_and_ends(apps, running):
    upgrade(running)
    edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
    assert running.reload()["generation"] == 2
    assert get(running.port)["version"] == "2"
    assert ask(running.process.pid, "scale", 3)[0] == 0
    running.wait_for("ready", slot=2)
    upgrade(running)
    killed = running.pids()[1]
    os.kill(killed, signal.SIGKILL)
    assert running.wait_for("exit", slot=1, pid=killed)["signal"] == "SIGKILL"
    running.wait_for("ready", slot=1)
    assert running.status()["generation"] == 2
    assert running.end() == 0
    assert running.seen[-1]["event"] == "end"


def test_many_in_a_row_under_load_lose_nothing(apps):
    with start(apps, target=("keeps_alive.py", "0")) as running:
        running.wait_each("ready", 2)
        workers, pid = running.pids(), running.process.pid
        upgrade(running)
        before = kinds(pid)
        with Load(running.port, clients=4) as load, KeepAlive(running.port) as connection:
            served = connection.ask()["pid"]
            for _ in range(MANY):
                upgrade(running)
                assert connection.ask()["pid"] == served
            load.more(50)
        assert load.failures() == []
        assert running.pids() == workers and running.count("exit") == 0
        # A look at the kernel may have a descriptor just now; what is lost each time adds up.
        assert sum((kinds(pid) - before).values()) <= 2 < MANY


def test_the_control_socket_the_name_and_the_metrics_are_the_same(apps):
    with start(apps, "--metrics", "127.0.0.1:0", "--name", "mine") as running:
        running.wait_each("ready", 2)
        status = running.status()
        with connect(int(status["metrics"].rpartition(":")[2])) as scraper:
            upgrade(running)  # waits for whoever asks
            assert scraper.recv(1) == b""
        after = running.status()
        for same in ("name", "metrics", "generation", "door", "balance"):
            assert after[same] == status[same]
        with connect(int(after["metrics"].rpartition(":")[2])) as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = scraper.makefile().read()
        assert "_total" in text


def test_hooks_are_told_and_are_waited_for(apps, tmp_path):
    told = tmp_path / "told"
    hook = f"upgraded=echo $RECLUSTER_EVENT_TO_VERSION >> {told}"
    with start(apps, "--on", hook) as running:
        running.wait_each("ready", 2)
        upgrade(running)
        upgrade(running)
        until(lambda: told.exists() and len(told.read_text().split()) == 2)


def test_no_worker_gets_what_was_kept_open_across_the_exec(apps):
    with start(apps, target=("--", sys.executable, "http_server.py", "0")) as running:
        running.wait_each("ready", 2)
        before = shared(running)
        upgrade(running)
        assert running.reload()["ok"]
        assert shared(running) == before
        assert b"RECLUSTER_SUCCEEDS" not in Path(f"/proc/{running.pids()[0]}/environ").read_bytes()


def shared(running):
    """What slot 0 and the master both have open: its listener, and what both were given."""
    both = set(links(running.pids()[0])) & set(links(running.process.pid))
    return Counter(re.sub(r"\[\d+\]", "", link) for link in both)


def test_the_next_program_that_steers_is_right(apps):
    """It is by the places that lanes have in the kernel, where there is no eBPF."""
    with start(apps, "--balance", "reuseport", target=("asyncio_server.py", "0")) as running:
        running.wait_each("ready", 2)
        assert running.reload()["ok"]
        running.wait_each("exit", 2, generation=1)
        upgrade(running)
        all_answer(running.port, set(running.pids().values()))
        assert running.reload()["ok"]
        all_answer(running.port, set(running.pids().values()))
        running.wait_each("exit", 2, generation=2)
        upgrade(running)
        killed = running.pids()[1]
        os.kill(killed, signal.SIGKILL)
        running.wait_for("ready", slot=1, generation=3, where=lambda one: one["pid"] != killed)
        all_answer(running.port, set(running.pids().values()))


def test_limits_of_workers_are_as_they_were(apps):
    """The master raises its own, and an exec keeps that."""

    def limit(pid):
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return next(line for line in lines if line.startswith("Max open files"))

    def lower():
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))

    with start(apps, preexec_fn=lower) as running:
        running.wait_each("ready", 2)
        before = limit(running.pids()[0])
        assert limit(running.process.pid) != before
        upgrade(running)
        assert running.reload()["ok"]
        assert limit(running.pids()[0]) == before


# ---- servers and modes -------------------------------------------------------------------

TURNS = ("--balance", "round_robin", "--balance-by")
MODES = {
    "many options": (
        ("--ready-url", "http://127.0.0.1/", "--env", "A=b", "--max-rss", "1G", "--jitter", "0.5"),
        ("http_server.py", "0"),
    ),
    "reuseport": (("--balance", "reuseport"), ("asyncio_server.py", "0")),
    "shared": (("--balance", "shared"), ("asyncio_server.py", "0")),
    "source_ip": (("--balance", "source_ip"), ("asyncio_server.py", "0")),
    "round_robin": (
        ("--balance", "round_robin", "--balance-by", "kernel"),
        ("http_server.py", "0"),
    ),
    "preload door": (("--door", "preload"), ("asyncio_server.py", "0")),
    "mold": (("--preload", "json"), ("http_server.py", "0")),
    "two addresses": ((), ("two_addresses.py", "0", "0")),
    "children": ((), ("forks_children.py", "0")),
    "bind": (("--bind", "127.0.0.1:PORT"), ("http_server.py", "PORT")),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_way_of_being_a_cluster_goes_on(apps, mode):
    options, target = MODES[mode]
    if mode == "round_robin" and (os.geteuid() != 0 or not has_bpf()):
        pytest.skip("needs CAP_BPF")
    port = str(free_port())
    options, target = ([one.replace("PORT", port) for one in words] for words in (options, target))
    with start(apps, *options, target=target) as running:
        running.wait_each("ready", 2)
        workers = running.pids()
        upgrade(running)
        assert running.pids() == workers
        get(running.port)
        os.kill(workers[0], signal.SIGKILL)
        running.wait_for("ready", slot=0, where=lambda one: one["pid"] != workers[0])
        upgrade(running)
        assert running.reload()["ok"]
        get(running.port)
        assert running.end() == 0


def has_bpf():
    import recluster._engine as engine

    made = engine.Engine()
    made.balance("round_robin")
    refused = made.balance_kernel()
    made.close()
    return refused is None


def test_node_goes_on(apps):
    if shutil.which("node") is None:
        pytest.skip("no node")
    with start(apps, target=("--", "node", "node_server.js", "0")) as running:
        running.wait_each("ready", 2)
        workers = running.pids()
        upgrade(running)
        all_answer(running.port, set(workers.values()))
        assert running.reload()["ok"]
        assert running.end() == 0


def test_uvicorn_goes_on(apps):
    if importlib.util.find_spec("uvicorn") is None:
        pytest.skip("no uvicorn")
    target = ("-m", "uvicorn", "asgi_app:app", "--port", "0", "--log-level", "error")
    with start(apps, target=target) as running:
        running.wait_each("ready", 2)
        workers = running.pids()
        upgrade(running)
        assert running.pids() == workers
        assert running.reload()["ok"]
        get(running.port)


@pytest.mark.parametrize("kind", ["asyncio", "socketserver"])
def test_udp_flows_stay_where_they_are(apps, kind):
    port = free_port()
    with start(apps, target=("udp_server.py", kind, port), workers=3) as running:
        running.wait_each("ready", 3)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(flow(port)) for _ in range(30)]
            before = [told(client) for client in clients]
            assert set(before) == set(running.pids().values())
            for _ in range(2):
                upgrade(running)
                assert [told(client) for client in clients] == before
            os.kill(running.pids()[0], signal.SIGKILL)
            running.wait_for("ready", slot=0, where=lambda one: one["pid"] not in before)
            assert {told(client) for client in clients} == set(running.pids().values())
        assert running.reload()["ok"]
        assert running.end() == 0


def test_an_address_that_no_worker_has_claimed_is_refused_still(apps):
    other = free_port()
    with start(apps, "--bind", f"127.0.0.1:{other}") as running:
        running.wait_each("ready", 2)
        running.wait_for("unclaimed")
        upgrade(running)
        with pytest.raises((ConnectionError, Broken)):
            get(other)
        assert running.status()["unclaimed"] == [f"127.0.0.1:{other}"]


# ---- between the two ---------------------------------------------------------------------


@pytest.fixture
def between(apps, installed, tmp_path):
    """A master that has begun to be another one, and waits: (it, what lets it go on, what waits
    for the answer)."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        installed.next_version()
        installed.held(fifo)
        with asked(running.process.pid) as answer:
            end = opened(fifo)
            yield running, lambda: os.close(end), answer


def test_a_signal_that_comes_meanwhile_is_taken_afterwards(between):
    running, let_go, answer = between
    running.process.send_signal(signal.SIGTERM)
    assert not running.pidfd.is_dead(0.2)
    let_go()
    assert answer()["ok"]
    assert running.wait() == 0
    assert running.count("upgraded") == 1 and running.count("exit") == 2


def test_a_worker_that_is_killed_meanwhile_is_replaced(between):
    running, let_go, answer = between
    killed = running.pids()[0]
    os.kill(killed, signal.SIGKILL)
    let_go()
    assert answer()["ok"]
    assert running.wait_for("exit", pid=killed)["signal"] == "SIGKILL"
    running.wait_for("ready", slot=0, where=lambda one: one["pid"] != killed)
    get(running.port)


def test_clients_are_served_meanwhile(between):
    running, let_go, answer = between
    with Load(running.port, clients=4) as load:
        load.more(20)
        let_go()
        assert answer()["ok"]
        load.more(20)
    assert load.failures() == []


def test_who_dies_meanwhile_takes_its_workers_along(between):
    running, let_go, _ = between
    family = [Pidfd(pid) for pid in descendants(running.process.pid)]
    running.process.kill()
    assert survivors(family, 1.0 + GENEROUS / 10) == []
    let_go()


def test_a_worker_that_binds_meanwhile_waits_for_its_answer(apps, installed, tmp_path):
    """And the listener that it makes is a lane of the new master's."""
    fifo, go = tmp_path / "fifo", tmp_path / "go"
    os.mkfifo(fifo)
    os.mkfifo(go)
    (apps / "binds_later.py").write_text(
        "import http.server, sys, threading, http_server\n"
        "def later():\n"
        f"    open({str(go)!r}).read()\n"
        "    made = http.server.HTTPServer(('127.0.0.1', 0), http_server.Handler)\n"
        "    made.serve_forever()\n"
        "threading.Thread(target=later, daemon=True).start()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http_server.Handler)"
        ".serve_forever()\n"
    )
    with start(apps, env=installed.env, target=("binds_later.py", "0"), workers=1) as running:
        running.wait_for("ready")
        installed.held(fifo)
        with asked(running.process.pid) as answer:
            end = opened(fifo)
            os.close(opened(go))
            os.close(end)
            assert answer()["ok"]
        first = running.port
        address = running.wait_for(
            "listening", where=lambda one: not one["address"].endswith(f":{first}")
        )["address"]
        assert get(int(address.rpartition(":")[2]))["pid"] == running.pids()[0]


# ---- the guard ---------------------------------------------------------------------------


def test_a_master_that_is_killed_afterwards_takes_its_workers_along(running):
    workers = running.pids()
    for _ in range(2):
        upgrade(running)
    assert running.pids() == workers
    until(lambda: len(descendants(running.process.pid)) == 3)  # two workers, and one guard
    family = [Pidfd(pid) for pid in descendants(running.process.pid)]
    running.process.kill()
    assert survivors(family, 1.0 + GENEROUS / 10) == []
