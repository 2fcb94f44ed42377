"""Signals to the master, alone, in storms, and in the middle of something."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from clients import Load, answers
from harness import Pidfd, Running, edit, kept, let_go, until

ROUGH = ("--respawn", 0.1, "--timeout", 60, "--drain-settle", 0.2)
IGNORES_TERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nVERSION ="


@pytest.fixture
def running(apps):
    with Running("--workers", 2, *ROUGH, "asyncio_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


@pytest.fixture
def stubborn(apps):
    """Its workers ignore SIGTERM: only SIGKILL ends them."""
    edit(apps / "http_server.py", "VERSION =", IGNORES_TERM)
    with Running("--workers", 2, *ROUGH, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


# ---- the end -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_graceful_end_under_load(number, running):
    with Load(running.port) as load:
        load.more(50)
        assert running.end(number) == 0
    # Whoever comes late is refused. Nobody who was let in is cut off.
    assert {type(answer.error) for answer in load.failures()} <= {ConnectionRefusedError}
    assert running.count("exit") == running.count("online") == 2
    assert running.count("exit", code=None, signal="SIGKILL") == 0
    assert running.wait_for("end")["code"] == 0


def test_exit_is_the_last_event_of_each_worker(running):
    assert running.reload()["ok"]
    assert running.end() == 0
    for pid in {event["pid"] for event in running.seen if event["event"] == "online"}:
        own = [e["event"] for e in running.seen if e.get("pid") == pid]
        assert own[0] == "online" and own[-1] == "exit" and own.count("exit") == 1, own


def test_second_int_ends_at_once(stubborn):
    stubborn.signal(signal.SIGINT)
    assert not stubborn.pidfd.is_dead()
    assert stubborn.end(signal.SIGINT, 10) == 0
    assert stubborn.count("exit", signal="SIGKILL") == 2


def test_quit_ends_at_once(stubborn):
    assert stubborn.end(signal.SIGQUIT, 10) == 0
    assert stubborn.count("exit", signal="SIGKILL") == 2


def test_timeout_ends_what_ignores_sigterm(apps):
    edit(apps / "http_server.py", "VERSION =", IGNORES_TERM)
    options = ("--workers", 2, "--timeout", 0.5, "--drain-settle", 0.1)
    with Running(*options, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert running.end(signal.SIGTERM, 10) == 0
        assert running.count("exit", signal="SIGKILL") == 2


def test_term_before_anything_is_ready(apps):
    with Running("--workers", 2, "never_listens.py", cwd=apps) as running:
        running.wait_each("online", 2)
        assert running.end(signal.SIGTERM, 10) == 0


# ---- more and fewer ------------------------------------------------------------------


def test_ttin_and_ttou_under_load(running):
    with Load(running.port) as load:
        running.signal(signal.SIGTTIN)
        third = running.wait_for("ready", slot=2)
        load.until(lambda fresh: any(one.facts and one.facts["worker"] == "2" for one in fresh))
        running.signal(signal.SIGTTOU)
        running.wait_for("exit", slot=2, pid=third["pid"])
        load.more(50)
    assert load.failures() == []
    assert running.pids().keys() == {0, 1}
    assert running.end() == 0


def test_ttou_leaves_one_worker(running):
    for _ in range(4):
        running.signal(signal.SIGTTOU)
    running.wait_for("exit", slot=1)
    assert running.pids().keys() == {0}
    assert {answer["worker"] for answer in answers(running.port, 10)} == {"0"}
    assert running.end() == 0


# ---- passed on -----------------------------------------------------------------------


def test_usr1_reaches_only_workers_that_catch_it(apps):
    catches = """
import signal
def caught(*unused):
    os.write(int(os.environ["NODE_CHANNEL_FD"]), b'"caught"\\n')
if os.environ["WORKER_ID"] == "0":
    signal.signal(signal.SIGUSR1, caught)
VERSION ="""
    edit(apps / "http_server.py", "VERSION =", catches)
    with Running("--workers", 2, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        before = running.pids()
        running.signal(signal.SIGUSR1)
        assert running.wait_for("message")["slot"] == 0
        running.signal(signal.SIGUSR1)
        assert running.wait_for("message")["slot"] == 0
        workers = {answer["worker"] for answer in answers(running.port, 40)}
        assert workers == {"0", "1"}
        assert running.pids() == before
        assert running.end() == 0


# ---- reloads -------------------------------------------------------------------------


def test_hup_reloads(running, apps):
    edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
    running.signal(signal.SIGHUP)
    assert running.wait_for("reload")["ok"]
    assert {answer["version"] for answer in answers(running.port, 10)} == {"2"}
    assert running.end() == 0


def test_five_reloads_within_a_second(running):
    """Failure mode 19: the newest wins, and nobody notices."""
    with Load(running.port) as load:
        for _ in range(5):
            running.signal(signal.SIGUSR2)
        outcomes = [running.wait_for("reload") for _ in range(5)]
        load.more(50)
        newest = {
            slot: running.wait_for("ready", slot=slot, generation=outcomes[-1]["generation"])
            for slot in (0, 1)
        }
        retired = {e["pid"] for e in running.seen if e["event"] == "online"}
        retired -= {event["pid"] for event in newest.values()}
        for pid in retired:
            running.wait_for("exit", pid=pid)
        load.more(50)
    assert outcomes[-1]["ok"]
    generations = [outcome["generation"] for outcome in outcomes]
    assert generations == sorted(set(generations))
    assert load.failures() == []
    assert running.pids() == {slot: event["pid"] for slot, event in newest.items()}
    assert running.end() == 0


def test_reloads_leave_nothing_behind(running):
    """Failure mode 24: as many descriptors and children after eight reloads as after one: that may
    open what is kept (the netlink socket of the drain facts)."""

    def held():
        tasks = Path(f"/proc/{running.process.pid}/task/{running.process.pid}")
        return len(kept(running.process.pid)), len((tasks / "children").read_text().split())

    def reload_and_drain():
        retired = running.pids()
        assert running.reload()["ok"]
        for pid in retired.values():
            running.wait_for("exit", pid=pid)

    quiet = held()
    reload_and_drain()
    before = until(lambda: (now := held()) <= (quiet[0] + 1, quiet[1]) and now)
    for _ in range(8):
        reload_and_drain()
    # One more is right: the sock_diag socket is opened at the first retirement.
    until(lambda: (now := held())[0] <= before[0] + 1 and now[1] == before[1])
    assert running.end() == 0


def test_term_in_the_middle_of_a_reload(running):
    """Failure mode 19: it ends, and the reload has failed."""
    running.signal(signal.SIGUSR2)
    running.wait_for("online", generation=2)
    assert running.end(signal.SIGTERM, 15) == 0
    outcome = running.wait_for("reload")
    assert not outcome["ok"] and outcome["why"]
    assert running.count("online") == running.count("exit")


# ---- a worker dies in the middle of a reload -----------------------------------------


@contextlib.contextmanager
def held_reload(apps, workers=2):
    """A cluster in a reload that is not complete until `release(slot)` of each."""
    for slot in range(workers):
        os.mkfifo(apps / f"go.{slot}")

    def release(slot):
        let_go(apps / f"go.{slot}")

    options = ("--workers", workers, "--boots", workers, "--ready-when", "ready", *ROUGH)
    with Running(*options, "listens_then_ready.py", "0", "go", cwd=apps) as running:
        for slot in range(workers):
            release(slot)
        running.wait_each("ready", workers)
        edit(apps / "listens_then_ready.py", 'VERSION = "1"', 'VERSION = "2"')
        running.signal(signal.SIGUSR2)
        running.wait_each("listening", workers, generation=2)
        yield running, release


def kill(pid):
    pidfd = Pidfd(pid)
    pidfd.signal(signal.SIGKILL)
    assert pidfd.is_dead(10)
    pidfd.close()


def pid_of(running, slot, generation):
    found = [e for e in running.seen if e["event"] == "online" and e["slot"] == slot]
    return [event["pid"] for event in found if event["generation"] == generation][-1]


def test_an_incoming_worker_dies(apps):
    """Failure mode 19: the reload fails, the old ones serve on."""
    with held_reload(apps) as (running, _):
        kill(pid_of(running, 1, 2))
        outcome = running.wait_for("reload")
        assert not outcome["ok"] and "worker 1" in outcome["why"]
        running.wait_for("exit", pid=pid_of(running, 0, 2))
        serving = {answer["pid"] for answer in answers(running.port, 40)}
        assert serving == {pid_of(running, slot, 1) for slot in (0, 1)}
        assert running.end() == 0


def test_a_serving_worker_dies(apps):
    """Failure mode 19: its successor is on its way already: the reload's own."""
    with held_reload(apps) as (running, release):
        kill(pid_of(running, 1, 1))
        running.wait_for("exit", pid=pid_of(running, 1, 1))
        facts = answers(running.port, 20)
        assert {(a["worker"], a["version"]) for a in facts} == {("0", "1")}
        release(0)
        release(1)
        assert running.wait_for("reload")["ok"]
        facts = answers(running.port, 40)
        assert {(a["worker"], a["version"]) for a in facts} == {("0", "2"), ("1", "2")}
        assert {a["pid"] for a in facts} == {pid_of(running, slot, 2) for slot in (0, 1)}
        assert running.end() == 0


def test_both_die(apps):
    """Failure mode 19: no old worker is in that slot any more, the new one failed: respawn."""
    with held_reload(apps) as (running, release):
        kill(pid_of(running, 1, 1))
        kill(pid_of(running, 1, 2))
        assert not running.wait_for("reload")["ok"]
        release(1)
        running.wait_for("ready", slot=1, generation=1)
        workers = {answer["worker"] for answer in answers(running.port, 40)}
        assert workers == {"0", "1"}
        assert running.end() == 0
