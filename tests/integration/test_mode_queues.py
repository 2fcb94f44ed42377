"""Queues of lanes: what waits in one outlives its worker, its backlog and its place.

The numbers are those of the project's list of failure modes.
"""

import os
import signal
from pathlib import Path

from clients import Load, queue, read_all
from harness import Pidfd, Running, edit, let_go, stop, until

FAST = ("--respawn", 0, "--backoff", 0, "--drain-settle", 0.2)
LISTENS = ("--ready-when", "listening")  # they accept when they are told to


def somaxconn():
    return int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_one_of_two_listeners_is_closed(apps):
    """Failure mode 1: 60 wait in two lanes, one worker closes its own and goes."""
    for slot in range(2):
        os.mkfifo(apps / f"go.{slot}")
    options = ("--workers", 2, *LISTENS, *FAST)
    with Running(*options, "accepts_late.py", "0", "go", cwd=apps) as running:
        running.wait_each("ready", 2)
        first = running.pids()
        waiting = queue(running.port, 60)
        assert sum(lane["queued"] for lane in running.lanes().values()) == 60
        let_go(apps / "go.0", b"leave")
        (apps / "go.0").unlink()
        left = running.wait_for("exit", slot=0, pid=first[0])
        assert left["code"] == 0
        successor = running.wait_for("ready", where=lambda e: e["pid"] not in first.values())
        let_go(apps / "go.1")
        served = [answer["pid"] for answer in read_all(waiting)]
        assert set(served) == {first[1], successor["pid"]}
        assert running.end() == 0


def test_the_last_listener_is_closed(apps):
    """Failure mode 1: and with nobody else there, at a reload's end and at a shutdown."""
    os.mkfifo(apps / "go.0")
    options = ("--workers", 1, *LISTENS, *FAST)
    with Running(*options, "accepts_late.py", "0", "go", cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        running.wait_for("message", pid=old)  # it has looked for its FIFO
        waiting = queue(running.port, 30)
        (apps / "go.0").rename(apps / "aside")
        assert running.reload()["ok"]  # the old worker has not taken one of them
        waiting += queue(running.port, 5)  # of the new one
        let_go(apps / "aside", b"leave")
        assert running.wait_for("exit", pid=old)["code"] == 0
        served = {answer["pid"] for answer in read_all(waiting)}
        assert old not in served

        new = running.pids()[0]
        stop(new)
        waiting = queue(running.port, 30)
        running.signal(signal.SIGTERM)
        until(lambda: running.status()["closing"])
        Pidfd(new).signal(signal.SIGKILL)
        assert len(read_all(waiting)) == 30
        assert running.wait() == 0


def test_a_backlog_is_never_lowered(apps):
    """Failure mode 9: nor by its own worker, nor by its child, nor by the successor."""
    fair = min(somaxconn(), 1024)
    with Running("--workers", 1, *FAST, "listens_again.py", "0", cwd=apps) as running:
        for _ in range(2):
            pid = running.wait_for("ready")["pid"]
            running.wait_for("message", pid=pid)
            assert running.lanes()[pid]["backlog"] == fair
            stop(pid)
            waiting = queue(running.port, min(200, fair))
            Pidfd(pid).signal(signal.SIGKILL)
            assert pid not in {answer["pid"] for answer in read_all(waiting)}
        assert running.end() == 0


def test_lanes_move_into_holes(apps):
    """Failure mode 15: whichever goes, nobody who is not live gets a connection.

    The last of the group is always the lane of a worker that is not ready: if a
    program outlived a removal, it would choose that one.
    """
    workers = 4
    for slot in range(workers):
        os.mkfifo(apps / f"go.{slot}")
    options = ("--workers", workers, "--boots", workers, "--ready-when", "ready", *FAST)
    with Running(*options, "listens_then_ready.py", "0", "go", cwd=apps) as running:
        for slot in range(workers):
            let_go(apps / f"go.{slot}")
        running.wait_each("ready", workers)
        serving = running.pids()
        edit(apps / "listens_then_ready.py", 'VERSION = "1"', 'VERSION = "2"')
        with Load(running.port, clients=4) as load:
            for victim in range(workers):
                running.signal(signal.SIGUSR2)
                new = running.wait_each("listening", workers, generation=victim + 2)
                pids = {slot: event["pid"] for slot, event in new.items()}
                assert pids.keys() == serving.keys() and set(pids.values()) <= set(running.lanes())
                load.more(100)
                Pidfd(pids[victim]).signal(signal.SIGKILL)  # its lane goes first, then the others
                assert not running.wait_for("reload")["ok"]
                until(lambda: set(running.lanes()) == set(serving.values()))
                load.more(100)
        assert load.failures() == []
        assert {answer.facts["pid"] for answer in load.answers} == set(serving.values())
        assert running.end() == 0


def test_lanes_of_serving_workers_go(apps):
    """Failure mode 15: scaling down and up under load, each slot from the end."""
    with Running("--workers", 4, *FAST, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 4)
        with Load(running.port, clients=4) as load:
            for slot in (3, 2, 1):
                running.signal(signal.SIGTTOU)
                running.wait_for("exit", slot=slot)
                until(lambda slot=slot: len(running.lanes()) == slot)
                load.more(100)
            for slot in (1, 2, 3):
                running.signal(signal.SIGTTIN)
                running.wait_for("ready", slot=slot)
                load.more(100)
            assert running.reload()["ok"]
            until(lambda: set(running.lanes()) == set(running.pids().values()))
            load.more(100)
        assert load.failures() == []
        lanes = running.lanes().values()
        assert sorted(lane["slot"] for lane in lanes) == [0, 1, 2, 3]
        until(lambda: all(lane["live"] for lane in running.lanes().values()))  # none is busy
        assert running.end() == 0
