"""`recluster upgrade` where the master accepts for its workers: what it holds goes on with it.

UPGRADES=100 for so many in a row under load.
"""

import os
import signal
from collections import Counter

import pytest
from clients import Load, answers, connect, get, read_answer, send_request
from ctlcase import ask
from harness import edit, stop, until
from procnet import ESTABLISHED, sockets
from test_dispatch import WAYS, count, even, held, let_go, words
from test_upgrade import MANY, kinds
from upgradecase import Installed, asked, opened, start, upgrade

BALANCES = ("round_robin", "least_connections")


def begin(apps, balance, way="forked", name="asyncio_server.py", **more):
    options = ("--balance", balance, "--balance-by", "dispatch")
    *before, program, port = words(way, name, "0")
    return start(apps, *options, *before, target=(program, port), **more)


def accepted(running):
    """How many connections each slot's worker has been given, by the master's count."""
    return {one["slot"]: one["accepted"] for one in running.status()["slots"]}


@pytest.mark.core
@pytest.mark.parametrize("balance", BALANCES)
def test_many_in_a_row_under_load_lose_nothing(apps, balance):
    with begin(apps, balance) as running:
        running.wait_each("ready", 2)
        workers, pid = running.pids(), running.process.pid
        upgrade(running)
        before = kinds(pid)
        with Load(running.port, clients=8) as load:
            for _ in range(MANY):
                upgrade(running)
                load.more(8)
            load.more(50)
        assert load.failures() == []
        assert running.pids() == workers and running.count("exit") == 0
        assert sum((kinds(pid) - before).values()) <= 2 < MANY


@pytest.mark.core
@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("way", WAYS)
def test_afterwards_it_dispatches_reloads_and_respawns(apps, way, balance):
    with begin(apps, balance, way) as running:
        running.wait_each("ready", 2)
        how = running.status()["balance"]
        answers(running.port, 20)
        upgrade(running)
        assert running.status()["balance"] == how
        counts = Counter(answer["pid"] for answer in answers(running.port, 60))
        assert set(counts) == set(running.pids().values())
        assert way == "alone" or balance != "round_robin" or even(counts, 2), counts
        killed = running.pids()[1]
        os.kill(killed, signal.SIGKILL)
        running.wait_for("ready", slot=1, where=lambda one: one["pid"] != killed)
        upgrade(running)
        edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        assert {answer["version"] for answer in answers(running.port, 20)} == {"2"}
        upgrade(running)
        assert ask(running.process.pid, "scale", 3)[0] == 0
        running.wait_for("ready", slot=2)
        counts = Counter(answer["pid"] for answer in answers(running.port, 60))
        assert set(counts) == set(running.pids().values())
        assert running.end() == 0


def test_turns_go_on_where_they_were(apps):
    """Who has had more before the upgrade is owed nothing after it, and the counts go on."""
    with begin(apps, "round_robin") as running:
        running.wait_each("ready", 2)
        answers(running.port, 21)
        before = accepted(running)
        upgrade(running)
        assert accepted(running) == before
        answers(running.port, 21)
        after = accepted(running)
        assert sum(after.values()) == sum(before.values()) + 21 == 42
        assert even(after, 2)


@pytest.mark.parametrize("end", ["goes on", "is killed"])
@pytest.mark.parametrize("balance", BALANCES)
def test_what_nobody_has_taken_waits_for_who_does(apps, balance, end):
    """One connection that the master has taken back from a worker that sleeps, the others in the
    queue of its own listener."""
    with begin(apps, balance, workers=1) as running:
        running.wait_for("ready")
        get(running.port)
        worker, master = running.pids()[0], running.process.pid
        stop(worker)
        waiting = [connect(running.port) for _ in range(5)]
        for one in waiting:
            send_request(one)
        until(lambda: sockets(master, running.port, ESTABLISHED))
        for _ in range(2):
            upgrade(running)
            assert sockets(master, running.port, ESTABLISHED)
        os.kill(worker, signal.SIGKILL if end == "is killed" else signal.SIGCONT)
        for one in waiting:
            with one:
                read_answer(one)


def test_an_offer_that_is_not_taken_yet_is_not_lost(apps):
    """It lies in the worker's end of the pair, of which the master has a duplicate."""
    with begin(apps, "round_robin") as running:
        running.wait_each("ready", 2)
        answers(running.port, 2)
        workers = running.pids()
        for pid in workers.values():
            stop(pid)
        waiting = [connect(running.port) for _ in range(6)]
        for one in waiting:
            send_request(one)
        upgrade(running)
        os.kill(workers[0], signal.SIGKILL)  # the other one gets what was this one's
        os.kill(workers[1], signal.SIGCONT)
        for one in waiting:
            with one:
                read_answer(one)


def test_open_connections_are_counted_on(apps, tmp_path):
    """Also those that end while no master listens to the kernel."""
    installed = Installed(tmp_path / "site")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with begin(
        apps, "least_connections", name="holds_connections.py", workers=4, env=installed.env
    ) as running:
        running.wait_each("ready", 4)
        open_ = held(running.port, 40)
        assert even(count(open_), 4), count(open_)
        let_go([one for one in open_ if one[0] in "01"])
        open_ = [one for one in open_ if one[0] in "23"]
        upgrade(running)
        open_ += held(running.port, 24)
        assert even(count(open_), 4), count(open_)
        installed.held(fifo)
        with asked(running.process.pid) as answer:
            end = opened(fifo)
            let_go([one for one in open_ if one[0] == "2"])
            open_ = [one for one in open_ if one[0] != "2"]
            os.close(end)
            assert answer()["ok"]
        running.wait_for("upgraded")
        open_ += held(running.port, 11)
        assert even(count(open_), 4), count(open_)
        let_go(open_)
