"""A listening socket is shared, by a worker, its children and the master: what one does to it.

The numbers are those of the project's list of failure modes.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from clients import (
    all_answer,
    answers,
    ask_grpc,
    connect,
    get,
    queue,
    read_all,
    read_answer,
    send_request,
)
from harness import Pidfd, Running, edit, free_port, let_go, replace, stop, until
from procnet import LISTENING, hold_each, sockets

FAST = ("--respawn", 0, "--backoff", 0, "--drain-settle", 0.2)

# ---- O_NONBLOCK ----------------------------------------------------------------------


def is_nonblocking(pid, port):
    """O_NONBLOCK of the one TCP socket that process listens with."""
    found = set()
    for fd in sockets(pid, port, LISTENING):
        flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
        found.add(bool(int(flags, 8) & os.O_NONBLOCK))
    (one,) = found
    return one


# It answers an empty connection too, and ends when that has been reset meanwhile (limits.md).
UNPROVED = ("--ready-when", "listening")
PAIRS = [("accepts_blocking", "asyncio_server"), ("asyncio_server", "accepts_blocking")]


@pytest.mark.parametrize("first, second", PAIRS)
def test_the_heir_of_a_lane_has_its_own_mode(first, second, apps):
    """Failure mode 11: whoever gets a dead worker's lane accepts as its program wants.

    asyncio accepts until EAGAIN, and would hang on a blocking listener; a program
    that waits in accept would end by EAGAIN.
    """
    (apps / "server.py").write_text((apps / f"{first}.py").read_text())
    with Running("--workers", 1, *FAST, *UNPROVED, "server.py", "0", cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        assert is_nonblocking(pid, running.port) == (first == "asyncio_server")
        replace(apps / "server.py", apps / f"{second}.py")
        stop(pid)
        waiting = queue(running.port, 10)
        Pidfd(pid).signal(signal.SIGKILL)
        heir = running.wait_for("ready")["pid"]
        assert {answer["pid"] for answer in read_all(waiting)} == {heir}
        assert {answer["pid"] for answer in answers(running.port, 5)} == {heir}
        assert is_nonblocking(heir, running.port) == (second == "asyncio_server")
        assert running.count("exit") == 1
        assert running.end() == 0


@pytest.mark.parametrize("name", ["accepts_blocking", "asyncio_server"])
def test_the_master_leaves_the_mode_alone(name, apps):
    """Failure mode 11: steering, status, retirement and draining do not change it."""
    with Running("--workers", 2, *FAST, *UNPROVED, f"{name}.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        old = running.pids()
        with connect(running.port) as held:  # keeps one of the two
            running.signal(signal.SIGTTIN)
            running.wait_for("ready", slot=2)
            assert running.reload()["ok"]
            running.wait_for("exit", where=lambda e: e["pid"] in old.values())
            kept = [pid for pid in old.values() if pid in running.states()]
            pids = kept + list(running.pids().values())
            assert len(kept) == 1 and len(pids) == 4
            wanted = name == "asyncio_server"
            assert [is_nonblocking(pid, running.port) for pid in pids] == [wanted] * 4
            send_request(held)
            assert read_answer(held)["pid"] == kept[0]
        assert running.end() == 0


# ---- shutdown() ----------------------------------------------------------------------

SHUTTING = {
    "socket": ("shuts_listener.py", get),
    "grpcio": ("grpc_stops.py", ask_grpc),
}


@pytest.fixture(params=SHUTTING)
def shutting(request, apps):
    """(its workers shut their listener down on SIGUSR1, how to ask it), three of them."""
    name, ask = SHUTTING[request.param]
    port = free_port() if request.param == "grpcio" else 0
    if request.param == "grpcio":
        pytest.importorskip("grpc")
    for slot in range(3):
        os.mkfifo(apps / f"go.{slot}")
    options = ("--workers", 3, "--boots", 3, "--ready-when", "ready", *FAST)
    # Who is retired, while it has a connection, which is not moved either.
    stays = ("--drain-quiet", 60, "--timeout", 60, "--handover", "off")
    with Running(*options, *stays, name, port, "go", cwd=apps) as running:
        for slot in range(3):
            let_go(apps / f"go.{slot}")
        running.wait_each("ready", 3)
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        edit(apps / "grpc_server.py", 'VERSION = "1"', 'VERSION = "2"')
        yield running, ask


def shut(running, pid):
    """Its listener is shut down, and the master has seen that."""
    os.kill(pid, signal.SIGUSR1)
    running.wait_for("message", pid=pid, message="shut")
    until(lambda: pid not in running.lanes())


def test_shutdown_of_a_listener_is_felt_by_nobody_else(shutting):
    """Failure mode 10: what waits in the other lanes stays, and new ones come there."""
    running, ask = shutting
    pids = running.pids()
    if ask is get:
        for slot in range(3):  # one that took what comes would be preferred
            stop(pids[slot])
        waiting = []
        while min(running.lanes()[pids[slot]]["queued"] for slot in (1, 2)) < 20:
            waiting += queue(running.port, 10)
        os.kill(pids[0], signal.SIGCONT)
        until(lambda: running.lanes()[pids[0]]["queued"] == 0)  # else its own loss
        shut(running, pids[0])
        waiting += queue(running.port, 20)
        for slot in (1, 2):
            os.kill(pids[slot], signal.SIGCONT)
        assert {answer["pid"] for answer in read_all(waiting)} == set(pids.values())
    else:
        shut(running, pids[0])
    all_answer(running.port, {pids[1], pids[2]}, ask)
    assert {pids[1], pids[2]} <= set(running.lanes()) and pids[0] not in running.lanes()


def test_what_was_shut_down_is_not_inherited(shutting, apps):
    """Failure mode 10: the successor of such a worker has a lane of its own."""
    running, ask = shutting
    pids = running.pids()
    shut(running, pids[0])
    os.kill(pids[0], signal.SIGKILL)
    running.wait_for("exit", pid=pids[0])
    let_go(apps / "go.0")
    new = running.wait_for("ready", slot=0, where=lambda event: event["pid"] != pids[0])["pid"]
    all_answer(running.port, {new, pids[1], pids[2]}, ask)


def test_the_lanes_behind_one_that_shuts_down_move(shutting, apps):
    """Failure mode 34: the last moves into the hole, and is not ready: it gets nothing."""
    running, ask = shutting
    old = running.pids()
    running.signal(signal.SIGUSR2)
    running.wait_each("listening", 3, generation=2)
    assert len(running.lanes()) == 6
    left = dict(old)
    for slot in (0, 1):
        shut(running, left.pop(slot))
        all_answer(running.port, {(pid, "1") for pid in left.values()}, ask, ("pid", "version"))
    for slot in range(3):
        let_go(apps / f"go.{slot}")
    assert running.wait_for("reload")["ok"]
    new = {(str(slot), "2") for slot in range(3)}
    all_answer(running.port, new, ask, ("worker", "version"))
    assert not set(old.values()) & set(running.pids().values())


def test_a_retired_worker_may_shut_its_lane_down(shutting, apps):
    """Failure mode 34: grpcio's stop() at the end of a drain moves live lanes, and so
    does one of the new generation."""
    running, ask = shutting
    old = running.pids()
    held = hold_each(running.port, old.values())  # so that the old ones stay
    running.signal(signal.SIGUSR2)
    running.wait_each("listening", 3, generation=2)
    for slot in range(3):
        let_go(apps / f"go.{slot}")
    assert running.wait_for("reload")["ok"]
    new = running.pids()
    shut(running, old[0])
    all_answer(running.port, new.values(), ask)
    shut(running, new[1])
    shut(running, old[2])
    all_answer(running.port, {new[0], new[2]}, ask)
    for connection in held:
        connection.close()


# ---- event loops -----------------------------------------------------------------------

LOOPS = {
    "selectors": ("sys", ["socketserver_threading.py", "0"]),
    "asyncio": ("sys", ["asyncio_server.py", "0"]),
    "uvloop": ("uvloop", ["-m", "uvicorn", "--loop", "uvloop", "asgi_app:app", "--port", "PORT"]),
    "node": ("node", ["--", "node", "node_server.js", "0"]),
}


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def expect_calm(pids):
    """While this process works for a second, a loop that spins would have about as much
    of the machine, however busy that is. One that waits has next to nothing."""
    before = {pid: cpu_seconds(pid) for pid in pids}
    enough = time.process_time() + 1
    while time.process_time() < enough:
        pass
    spent = {pid: cpu_seconds(pid) - before[pid] for pid in pids}
    assert before and all(seconds < 0.3 for seconds in spent.values()), spent


@pytest.mark.parametrize("name", LOOPS)
def test_event_loops_of_retired_workers_are_calm(name, apps):
    """Failure mode 36: retired by a reload, retired by scaling down, and shutting down."""
    needs, words = LOOPS[name]
    if not (shutil.which(needs) or importlib.util.find_spec(needs)):
        pytest.skip(f"{needs} is not installed")
    words = [word.replace("PORT", str(free_port())) for word in words]
    with Running("--workers", 2, *FAST, *words, cwd=apps) as running:
        running.wait_each("ready", 2)
        with contextlib.ExitStack() as held:
            first = set(running.pids().values())
            # Connections that nothing was asked on keep every worker.
            for _ in range(20):
                held.enter_context(connect(running.port))
            assert running.reload()["ok"]
            for _ in range(20):
                held.enter_context(connect(running.port))
            second = running.pids()
            running.signal(signal.SIGTTOU)
            retired = {*first, second[1]}
            until(lambda: all(running.states().get(pid) == "draining" for pid in retired))
            expect_calm(retired)
            running.signal(signal.SIGTERM)
            until(lambda: running.states().get(second[0]) == "draining")
            expect_calm({second[0]})
        assert running.wait() == 0


def test_event_loops_of_what_a_worker_leaves_behind_are_calm(apps):
    """Failure mode 36: its leader is dead; a child of it polls the lane still."""
    os.mkfifo(apps / "life")
    life = os.open(apps / "life", os.O_RDWR)  # they end when it does, whatever happens here
    with Running("--workers", 2, *FAST, "child_polls.py", "0", "life", cwd=apps) as running:
        try:
            running.wait_each("ready", 2)
            if running.status()["door"] == "preload":
                pytest.skip("without seccomp nobody knows of strays (docs/limits.md)")
            old = running.pids()
            assert running.reload()["ok"]
            for pid in old.values():
                running.wait_for("exit", pid=pid)
            strays = [running.wait_for("message")["message"]["child"] for _ in range(4)]
            expect_calm(strays)
        finally:
            os.close(life)
        assert running.end() == 0
