"""What waits in the lane of a worker that has died goes to its siblings, at once."""

import importlib.util
import os
import shutil
import signal
import socket
import sys

import deny
import pytest
from clients import Load, connect, queue, read_all, send_request
from ctlcase import ask as ctl
from ctlcase import likely
from harness import Pidfd, Running, descendants, edit, free_port, let_go, stop, until
from test_servers import SERVERS

ALONE = ("--respawn", 60)  # no heir comes in time
EACH = ("--balance", "reuseport")  # whoever is stopped gets connections all the same
RECEIVE = ["http_server", "socketserver_threading", "socketserver_forking", "asyncio", "aiohttp",
           "tornado", "uvicorn", "uvicorn_uvloop", "gunicorn", "granian",
           "node"]  # fmt: skip


def receives(running):
    """Of each worker, whether it can be given a connection."""
    slots = running.status()["slots"]
    return [worker["receives"] for slot in slots for worker in slot["workers"]]


def stop_all(pid):
    for one in (pid, *descendants(pid)):
        stop(one)


def queue_at(running, pid):
    """Connections, of which some are in the lane of this worker, which is stopped. (One may be
    all: when it waits for a while, the worker hangs, and siblings get the others.)"""
    waiting = []
    while not sum(one["queued"] for one in running.status()["lanes"] if one["pid"] == pid):
        waiting += queue(running.port, 5)
        assert len(waiting) < 300, running.status()
    return waiting


def kill(pid):
    Pidfd(pid).signal(signal.SIGKILL)


def words(server, port):
    return [word.replace("PORT", str(port)) for word in server.args]


def siblings_take_it(apps, *options, port=0, server=None, kind=Running):
    """Kill one of three with a queue; who has answered that."""
    args = words(server, port) if server else ("asyncio_server.py", "0")
    with kind("--workers", 3, *ALONE, *EACH, *options, *args, cwd=apps) as running:
        running.wait_each("ready", 3)
        assert all(receives(running))
        victim = running.pids()[1]
        stop_all(victim)
        waiting = queue_at(running, victim)
        kill(victim)
        found = {answer["pid"] for answer in read_all(waiting)}
        assert running.count("ready") == 3  # no heir was there
        assert running.end() == 0
    return found, victim


@pytest.mark.parametrize("name", RECEIVE)
def test_siblings_take_it(name, apps):
    server = SERVERS[name]
    if not (importlib.util.find_spec(server.needs) or shutil.which(server.needs)):
        pytest.skip(f"no {server.needs}")
    port = free_port() if server.port is None or server.inner else 0
    found, victim = siblings_take_it(apps, port=port, server=server)
    assert victim not in found


@pytest.mark.parametrize("flags", [0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC])
def test_it_is_as_accept_was_asked(flags, apps):
    """The client's own address, and the flags that the server wanted."""
    args = ("accepts_by_c.py", "0", flags)
    with Running("--workers", 2, *ALONE, *EACH, *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        victim = running.pids()[0]
        stop(victim)
        waiting = queue_at(running, victim)
        ports = {one.getsockname()[1] for one in waiting}
        kill(victim)
        found = read_all(waiting)
        assert {one["peer"] for one in found} == ports
        assert {one["host"] for one in found} == {"127.0.0.1"}
        assert {one["length"] for one in found} == {16}
        assert {one["nonblock"] for one in found} == {flags == socket.SOCK_NONBLOCK}
        assert {one["cloexec"] for one in found} == {flags == socket.SOCK_CLOEXEC}
        assert all(one["nodelay"] for one in found)
        assert running.end() == 0


def test_one_slot_is_killed_again_and_again(apps):
    """Each heir stands at its gate, so whoever waited for it would not be answered."""
    options = ("--workers", 3, "--respawn", 0, "--backoff", 0, *EACH)
    with Running(*options, "imports_late.py", "0", "go", cwd=apps) as running:
        running.wait_each("ready", 3)
        os.mkfifo(apps / "go.1")
        with Load(running.port, clients=4) as load:
            for _ in range(10):
                victim = running.pids()[1]
                stop(victim)
                waiting = queue_at(running, victim)
                kill(victim)
                assert victim not in {answer["pid"] for answer in read_all(waiting)}
                load.more(20)
                running.wait_for("online", slot=1, where=lambda e, old=victim: e["pid"] != old)
                let_go(apps / "go.1")
                running.wait_for("ready", slot=1, where=lambda e, old=victim: e["pid"] != old)
        assert len(load.failures()) <= 10 * 4  # what the killed had accepted is their own loss
        assert running.end() == 0


def test_what_comes_later_to_a_dead_lane_is_taken_too(apps):
    """A handshake that was under way ends in a lane whose worker is dead meanwhile."""
    with Running("--workers", 2, *ALONE, *EACH, "defers_accept.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        victim = running.pids()[0]
        connections = [connect(running.port) for _ in range(16)]
        kill(victim)
        running.wait_for("exit", slot=0)
        for connection in connections:  # deferred until there is data
            send_request(connection)
        assert victim not in {answer["pid"] for answer in read_all(connections)}
        assert running.end() == 0


def test_without_the_library_it_waits_for_its_heir(apps):
    options = ("--workers", 2, "--handover", "off", "--respawn", 0, *EACH)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert not any(receives(running))
        victim = running.pids()[0]
        stop(victim)
        waiting = queue_at(running, victim)
        kill(victim)
        heir = running.wait_for("ready", slot=0, where=lambda e: e["pid"] != victim)
        assert heir["pid"] in {answer["pid"] for answer in read_all(waiting)}
        assert running.end() == 0


def test_an_heir_whose_clients_wait_is_spawned_at_once(apps):
    """Nobody else could take them: the respawn's pause is not theirs."""
    with Running("--workers", 1, "--respawn", 60, "asyncio_server.py", "0", cwd=apps) as running:
        victim = running.wait_for("ready")["pid"]
        stop(victim)
        waiting = queue(running.port, 5)
        kill(victim)
        heir = running.wait_for("ready", where=lambda e: e["pid"] != victim)
        assert {answer["pid"] for answer in read_all(waiting)} == {heir["pid"]}
        assert running.end() == 0


@pytest.mark.parametrize("trial", ["bake", "canary"])
def test_a_roll_back_has_the_old_generation_answer(trial, apps):
    """R5: no relief worker runs the code that has failed, nor does it answer what it left."""
    bake = ("--bake", 60) if trial == "bake" else ()
    options = ("--workers", 2, *bake, "--drain-settle", 0.2, *EACH)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        old = running.pids()
        edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
        if trial == "bake":
            running.signal(signal.SIGUSR2)
        else:
            path = likely(running.process.pid)
            assert ctl("--control", path, "reload", "--canary", "0.5", "--wait")[0] == 0
        new = running.wait_each("ready", 2, generation=2)
        if trial == "bake":
            until(lambda: running.states()[old[0]] == "ready")  # the new one is on probation
        pids = [event["pid"] for event in new.values()]
        for pid in pids:
            stop(pid)
        waiting = [*queue_at(running, pids[0]), *queue_at(running, pids[1])]
        kill(pids[0])
        assert not running.wait_for("reload")["ok"]
        answers = read_all(waiting)
        assert {answer["version"] for answer in answers} == {"1"}
        assert {answer["pid"] for answer in answers} <= set(old.values())
        assert running.count("online") == 4
        Pidfd(pids[1]).signal(signal.SIGCONT)
        assert running.end() == 0


def test_a_hung_worker_is_given_up(apps):
    """What waits for it is answered while it still hangs."""
    options = ("--workers", 2, "--hang-timeout", 1, *ALONE, *EACH)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        victim = running.pids()[0]
        stop(victim)
        waiting = queue_at(running, victim)
        assert victim not in {answer["pid"] for answer in read_all(waiting)}
        assert running.end() == 0


class Confined(Running):
    """Under a runtime's usual profile, and with no capability."""

    denied = "pidfd_getfd,bpf"

    def _popen(self, command, **more):
        whole = [sys.executable, deny.__file__, self.denied, "--", *command]
        if shutil.which("setpriv"):
            whole = ["setpriv", "--inh-caps", "-all", "--bounding-set", "-all", *whole]
        return super()._popen(whole, **more)


@pytest.mark.parametrize("name", ["asyncio", "uvicorn_uvloop", "node"])
def test_in_a_container(name, apps):
    server = SERVERS[name]
    if not (importlib.util.find_spec(server.needs) or shutil.which(server.needs)):
        pytest.skip(f"no {server.needs}")
    found, victim = siblings_take_it(apps, server=server, kind=Confined)
    assert victim not in found


def test_workers_of_a_mold_receive(apps):
    found, victim = siblings_take_it(apps, "--preload", "json")
    assert victim not in found
