"""A reload in trouble never makes anything worse; time limits mean what they say (R2 to R4)."""

import contextlib
import os
import signal

import pytest
from clients import get, queue, read_answer
from harness import Running, edit, stop, until

FAST = ("--respawn", 0.1, "--drain-settle", 0.2)


BOOTS = """
import sys, time
time.sleep(1.2)
from http_server import Handler, http
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def reached(gate):
    """A write end of the FIFO, when somebody reads it; closing it ends their wait."""
    with contextlib.suppress(OSError):
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)


@pytest.fixture
def gates(apps):
    """Workers boot when their gate is opened, where they have one."""

    def close(*slots):
        for slot in slots:
            os.mkfifo(apps / f"go.{slot}")

    def open_(slot):
        """For those that stand there (one at least), and for those that come."""
        gate = apps / f"go.{slot}"
        end = until(lambda: reached(gate))
        gate.rename(apps / f"open.{slot}")
        os.close(end)

    close.open = open_
    return close


def test_ready_timeout_is_one_workers_own(apps):
    """R2: the whole reload must not fit into it."""
    (apps / "boots.py").write_text(BOOTS)
    options = ("--workers", 5, "--boots", 1, "--ready-timeout", 4, *FAST)
    with Running(*options, "boots.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 5)
        outcome = cluster.reload(timeout=60)
        assert outcome["ok"], outcome
        assert outcome["seconds"] > 4  # else it has shown nothing
        assert cluster.end() == 0


@pytest.mark.parametrize("how", ["half_way", "term_again"])
def test_a_worker_that_ignores_the_first_stop_signal(how, apps):
    """R3: it gets it again, and somebody says what is waited for."""
    limit = 8 if how == "half_way" else 600
    options = ("--workers", 2, "--shutdown-timeout", limit, *FAST)
    with Running(*options, "ignores_first_term.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        pids = set(cluster.pids().values())
        cluster.signal(signal.SIGTERM)
        waiting = cluster.wait_for("waiting")
        assert {one["pid"] for one in waiting["workers"]} == pids
        assert 0 < waiting["left"] < limit
        if how == "term_again":
            cluster.signal(signal.SIGTERM)
        exits = cluster.wait_each("exit", 2)
        assert all(event["code"] == 0 for event in exits.values())
        assert cluster.wait() == 0
        (line,) = [line for line in cluster.log() if "waiting for" in line][:1]
        assert "waiting for worker 0 (pid " in line and "Ctrl-C again: now" in line


def test_an_interrupt_in_a_shutdown_ends_it_now(apps):
    options = ("--workers", 2, "--shutdown-timeout", 600, *FAST)
    with Running(*options, "ignores_first_term.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        cluster.signal(signal.SIGTERM)
        cluster.wait_for("waiting")
        cluster.signal(signal.SIGINT)
        assert all(e["signal"] == "SIGKILL" for e in cluster.wait_each("exit", 2).values())
        assert cluster.wait() == 0


def test_a_shutdown_kills_who_is_left_at_its_end(apps):
    options = ("--workers", 1, "--shutdown-timeout", 3, *FAST)
    (apps / "deaf.py").write_text(
        (apps / "ignores_first_term.py").read_text().replace("> 1", "> 9")
    )
    with Running(*options, "deaf.py", "0", cwd=apps) as cluster:
        cluster.wait_for("ready")
        cluster.signal(signal.SIGTERM)
        assert cluster.wait_for("exit")["signal"] == "SIGKILL"
        assert cluster.wait() == 0


def test_everything_crashed_and_a_reload_is_asked(apps, gates):
    """R4: what is under way serves first, and the new code follows."""
    with Running("--workers", 3, *FAST, "imports_late.py", "0", "go", cwd=apps) as cluster:
        cluster.wait_each("online", 3)
        cluster.wait_each("ready", 3)
        gates(0, 1, 2)
        for pid in cluster.pids().values():
            os.kill(pid, signal.SIGKILL)
        cluster.wait_each("exit", 3)
        respawned = {slot: e["pid"] for slot, e in cluster.wait_each("online", 3).items()}
        cluster.signal(signal.SIGUSR2)
        # A reload that is taken: the second one supersedes it, and takes nothing away either.
        cluster.signal(signal.SIGUSR2)
        assert "superseded" in cluster.wait_for("reload")["why"]
        for slot in range(3):
            gates.open(slot)
        first = cluster.wait_each("ready", 3)
        assert {slot: event["pid"] for slot, event in first.items()} == respawned
        assert cluster.wait_for("reload")["ok"]
        assert cluster.end() == 0


def test_the_only_worker_dies_while_the_new_code_hangs_and_then_is_mended(apps, gates):
    """R4: no second reload is needed, nor `ready_timeout` waited for."""
    options = ("--workers", 1, "--ready-timeout", 600, *FAST)
    with Running(*options, "imports_late.py", "0", "go", cwd=apps) as cluster:
        cluster.wait_for("ready")
        (old,) = cluster.pids().values()
        gates(0)
        cluster.signal(signal.SIGUSR2)
        hangs = cluster.wait_for("online", generation=2)["pid"]
        end = until(lambda: reached(apps / "go.0"))  # it hangs, from here on
        os.kill(old, signal.SIGKILL)
        cluster.wait_for("exit", pid=old)
        (apps / "go.0").rename(apps / "hangs.0")
        ready = cluster.wait_for("ready")
        assert ready["pid"] != hangs
        assert cluster.wait_for("reload")["ok"]
        cluster.wait_for("exit", pid=hangs)
        os.close(end)
        assert get(cluster.port)["pid"] == ready["pid"]
        assert cluster.end() == 0


def test_what_waits_for_a_worker_that_dies_in_a_reload_is_answered_before_its_end(apps, gates):
    """R4: the newcomer that boots there has its lane, queue and all, where siblings have not."""
    options = ("--workers", 2, "--boots", 2, "--balance", "reuseport", "--handover", "off", *FAST)
    with Running(*options, "imports_late.py", "0", "go", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        old = cluster.pids()
        gates(0, 1)
        cluster.signal(signal.SIGUSR2)
        new = cluster.wait_each("online", 2, generation=2)
        stop(old[0])
        waiting = queue(cluster.port, 12)
        queued = [lane for pid, lane in cluster.lanes().items() if pid == old[0]]
        assert queued[0]["queued"] > 0, "of 12 at random none came to worker 0"
        os.kill(old[0], signal.SIGKILL)
        cluster.wait_for("exit", pid=old[0])
        gates.open(0)
        cluster.wait_for("ready", slot=0, generation=2)
        pids = {read_answer(one)["pid"] for one in waiting}
        assert pids == {old[1], new[0]["pid"]}
        assert cluster.count("reload") == 0
        for one in waiting:
            one.close()
        gates.open(1)
        assert cluster.wait_for("reload")["ok"]
        assert cluster.end() == 0


def test_a_newcomer_that_is_ready_takes_a_dark_slot_at_once(apps, gates):
    options = ("--workers", 2, "--boots", 2, *FAST)
    with Running(*options, "imports_late.py", "0", "go", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        old = cluster.pids()
        gates(1)
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        cluster.signal(signal.SIGUSR2)
        new = cluster.wait_for("ready", slot=0, generation=2)["pid"]
        assert cluster.states()[new] == "ready"
        os.kill(old[0], signal.SIGKILL)
        cluster.wait_for("exit", pid=old[0])
        assert cluster.states()[new] == "serving"
        assert cluster.count("reload") == 0
        gates.open(1)
        assert cluster.wait_for("reload")["ok"]
        assert cluster.end() == 0
