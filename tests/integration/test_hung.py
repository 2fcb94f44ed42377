"""A worker that takes no connections is avoided, told of, and replaced if so wanted."""

import os
import signal

import pytest
from clients import all_answer, answers, connect, read_answer, send_request
from harness import Running, let_go, stop

FAST = ("--respawn", 0, "--drain-settle", 0.2)


def ask(port, path="/"):
    connection = connect(port)
    send_request(connection, path)
    return connection


def hang(running, slot):
    """Connect until the worker of that slot is told to hang; who waits, and its pid."""
    pid, waiting = running.pids()[slot], []
    while not running.count("hung", pid=pid):
        waiting += [ask(running.port) for _ in range(4)]
        running._read(0.05)
    return pid, waiting


@pytest.mark.core
def test_hung_worker_is_avoided_until_it_takes(apps):
    """Failure mode 5: and gets connections again when it takes."""
    with Running("--workers", 3, *FAST, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 3)
        stop(running.pids()[0])
        pid, waiting = hang(running, 0)
        all_answer(running.port, {"1", "2"}, by=("worker",))
        os.kill(pid, signal.SIGCONT)
        served = [read_answer(connection) for connection in waiting]
        assert pid in {answer["pid"] for answer in served}
        running.wait_for("takes", pid=pid)
        assert "0" in {answer["worker"] for answer in answers(running.port, 100)}
        assert running.count("exit") == 0
        assert running.end() == 0


@pytest.mark.core
def test_hang_timeout_writes_the_stack_and_replaces(apps):
    """What waits in its lane is served by the successor."""
    options = ("--workers", 2, *FAST, "--hang-timeout", 0.5)
    with Running(*options, "hangs.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        with ask(running.port, "/hang"):  # which of the two hangs is steering's choice
            slot = running.wait_for("message")["slot"]
            pid, waiting = hang(running, slot)
            assert running.wait_for("exit", pid=pid)["signal"] == "SIGABRT"
            served = [read_answer(connection) for connection in waiting]
            assert pid not in {answer["pid"] for answer in served}
            running.wait_for("ready", slot=slot, where=lambda event: event["pid"] != pid)
        assert "blocks_for_ever" in running.stderr()
        assert any("hung for 0.5 s" in line for line in running.log())
        assert running.end() == 0


def test_hang_timeout_of_one_that_cannot_even_die(apps):
    """A stopped process handles no SIGABRT: SIGKILL follows."""
    options = ("--workers", 2, *FAST, "--hang-timeout", 0.2)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        stop(running.pids()[0])
        pid, waiting = hang(running, 0)
        assert running.wait_for("exit", pid=pid)["signal"] in ("SIGKILL", "SIGABRT")
        served = [read_answer(connection) for connection in waiting]
        assert pid not in {answer["pid"] for answer in served}
        assert running.end() == 0


def test_without_hang_timeout_it_is_left_alone(apps):
    # At random: who has the fewest connections would never be one that has hung with one.
    options = ("--workers", 2, "--balance", "reuseport", *FAST)
    with Running(*options, "hangs.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        victim = ask(running.port, "/hang")
        while not running.count("hung"):
            ask(running.port).close()
            running._read(0.05)
        assert running.count("exit") == 0
        victim.close()
        assert running.end(signal.SIGQUIT) == 0


# ---- whatever its siblings do --------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_where_all_hang_each_is_told_of_and_replaced(apps, workers):
    """Nobody is better, so nobody is avoided; and what waits is served by the successors."""
    options = ("--workers", workers, *FAST, "--hang-timeout", 0.2)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", workers)
        pids = set(running.pids().values())
        for pid in pids:
            stop(pid)
        waiting = [pair for slot in range(workers) for pair in hang(running, slot)[1]]
        for pid in pids:
            running.wait_for("hung", pid=pid)
            running.wait_for("exit", pid=pid)
        served = [read_answer(connection) for connection in waiting]
        assert not pids & {answer["pid"] for answer in served}
        assert running.end() == 0


@pytest.mark.parametrize("path, frame", [("/hang", "blocks"), ("/compute", "computes")])
def test_the_only_worker_hangs_asleep_or_at_work(apps, path, frame):
    """For `hang_timeout` it is the same that it computes: nobody is served."""
    options = ("--workers", 1, *FAST, "--hang-timeout", 0.5)
    with Running(*options, "hangs.py", "0", cwd=apps) as running:
        running.wait_for("ready")
        with ask(running.port, path):
            running.wait_for("message")
            pid, waiting = hang(running, 0)
            assert running.wait_for("exit", pid=pid)["signal"] == "SIGABRT"
            served = [read_answer(connection) for connection in waiting]
            assert pid not in {answer["pid"] for answer in served}
        assert f"{frame}_for_ever" in running.stderr()
        assert running.end() == 0


def test_beside_one_whose_own_queue_stands_still(apps, tmp_path):
    """Which is told of as well, and takes again."""
    go = tmp_path / "go"
    os.mkfifo(go)
    options = ("--workers", 2, "--balance", "reuseport", *FAST)
    with Running(*options, "blocks_loop.py", "0", go, cwd=apps) as running:
        running.wait_each("ready", 2)
        blocked = ask(running.port, "/block")
        busy = running.wait_for("message")["slot"]
        pid = running.pids()[1 - busy]
        stop(pid)
        _, waiting = hang(running, busy)
        waiting += hang(running, 1 - busy)[1]
        let_go(go)
        assert read_answer(blocked)["worker"] == str(busy)
        running.wait_for("takes", slot=busy)
        assert running.count("takes", pid=pid) == 0
        os.kill(pid, signal.SIGCONT)
        assert pid in {read_answer(connection)["pid"] for connection in waiting}
        running.wait_for("takes", pid=pid)
        assert running.count("exit") == 0
        assert running.end() == 0


def test_by_address_too(apps):
    """Its clients are no others' before it is replaced."""
    options = ("--workers", 2, "--balance", "source_ip", *FAST, "--hang-timeout", 0.2)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        (slot,) = {int(answer["worker"]) for answer in answers(running.port, 3)}
        stop(running.pids()[slot])
        pid, waiting = hang(running, slot)
        running.wait_for("exit", pid=pid)
        served = [read_answer(connection) for connection in waiting]
        assert {(answer["worker"], answer["pid"] != pid) for answer in served} == {
            (str(slot), True)
        }
        assert running.end() == 0
