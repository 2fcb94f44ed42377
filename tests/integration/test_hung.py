"""A worker that takes no connections is avoided, told of, and replaced if so wanted."""

import os
import signal

import pytest
from clients import all_answer, answers, connect, read_answer, send_request
from harness import Running, stop

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
