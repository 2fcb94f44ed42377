"""Much at once: reloads and deaths, signals to a worker in bind, a master that stands still.

The numbers are those of the project's list of failure modes.
"""

import contextlib
import os
import random
import signal
import socket
import threading
import time

import pytest
from clients import Load, all_answer, get
from harness import GENEROUS, Pidfd, Running, edit, free_port, stop, until

FAST = ("--respawn", 0, "--backoff", 0, "--drain-settle", 0.2)


# ---- reloads and deaths --------------------------------------------------------------


class Census(threading.Thread):
    """Counts, again and again, who serves in each slot."""

    def __init__(self, running):
        super().__init__()
        self._running, self._over = running, threading.Event()
        self.looks, self.wrong = 0, []

    def look(self):
        status = self._running.status()
        for slot in status["slots"]:
            serving = [w for w in slot["workers"] if w["state"] == "serving"]
            if len(serving) > 1:
                self.wrong.append(slot)
        self.looks += 1
        return status

    def run(self):
        with contextlib.suppress(OSError, ValueError, StopIteration):  # the master has ended
            while not self._over.is_set():
                self.look()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        self._over.set()
        self.join(GENEROUS)


def one_each(running, workers):
    """Each slot has one serving worker, and its lane alone is live; and they are of one
    generation, unless a reload has failed while nobody served in a slot."""
    status = running.status()
    serving = {
        worker["pid"]: slot["slot"]
        for slot in status["slots"]
        for worker in slot["workers"]
        if worker["state"] == "serving"
    }
    live = {lane["pid"]: lane["slot"] for lane in status["lanes"] if lane["live"]}
    generations = {lane["generation"] for lane in status["lanes"] if lane["live"]}
    reloads = [event for event in running.seen if event["event"] == "reload"]
    of_one = len(generations) == 1 or (not reloads[-1]["ok"] and reloads[-1]["changed"])
    whole = sorted(serving.values()) == list(range(workers)) and of_one
    return whole and live == serving and status["reloading"] is None and serving


def newest(running, workers):
    """The pid of the youngest worker of each slot, serving or on its way."""
    return [pid for slot, pid in sorted(running.pids().items()) if slot < workers]


@pytest.mark.parametrize("seed", range(4))
def test_reloads_and_deaths_in_one_second(seed, apps):
    """Failure mode 19: five reloads within 1 s, workers and incoming workers die."""
    chance, workers, killed = random.Random(seed), 3, 0
    args = ("--workers", workers, "--boots", workers, *FAST, "asyncio_server.py", "0")
    with Running(*args, cwd=apps) as running:
        first = running.wait_each("ready", workers)
        # More than one client: no slot is without a client when its worker is killed.
        with Load(running.port, clients=8) as load, Census(running) as census:
            load.more(50)
            for generation in range(2, 7):
                running.signal(signal.SIGUSR2)
                if chance.random() < 0.7:  # of the new generation, or of the serving one
                    slot = chance.randrange(workers)
                    if chance.random() < 0.5:
                        victim = running.wait_for("online", slot=slot, generation=generation)["pid"]
                    else:
                        states = running.states()
                        victim = chance.choice([p for p, s in states.items() if s == "serving"])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed += 1
            outcomes = [running.wait_for("reload") for _ in range(5)]
            serving = until(lambda: one_each(running, workers))
            load.more(100)
        assert census.wrong == [] and census.looks > 10
        # A killed worker loses what it had accepted, and nothing that waited.
        assert len(load.failures()) <= 8 * killed
        assert all(type(a.error).__name__ == "Broken" for a in load.failures()), load.failures()
        numbers = [outcome["generation"] for outcome in outcomes]
        assert numbers == sorted(set(numbers))
        all_answer(running.port, serving)
        assert not set(serving) & {e["pid"] for e in first.values()} or not any(
            outcome["ok"] for outcome in outcomes
        )
        edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        new = {(str(slot), "2") for slot in range(workers)}
        all_answer(running.port, new, by=("worker", "version"))
        assert running.end() == 0


@pytest.mark.parametrize("who", ["serving", "incoming"])
def test_term_while_a_reload_loses_a_worker(who, apps):
    """Failure mode 19: SIGTERM mid-reload, and a worker that dies in it."""
    with Running("--workers", 3, *FAST, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 3)
        old = running.pids()
        with Load(running.port, clients=8) as load:
            load.more(50)
            running.signal(signal.SIGUSR2)
            new = running.wait_for("online", slot=1, generation=2)["pid"]
            os.kill(new if who == "incoming" else old[1], signal.SIGKILL)
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
        outcome = running.wait_for("reload")
        assert outcome["ok"] or outcome["why"]
        lost = [a for a in load.failures() if not isinstance(a.error, ConnectionRefusedError)]
        assert len(lost) <= (8 if who == "serving" else 0), lost
        assert running.count("online") == running.count("exit")


# ---- signals to a worker -------------------------------------------------------------


# Until the master has taken the notification the kernel lets any signal end the wait,
# WAIT_KILLABLE_RECV or not (kernel/seccomp.c, should_sleep_killable); forked.py repeats.
@pytest.mark.parametrize("handler", ["restart", "plain"])
def test_signals_during_bind_and_listen(handler, apps):
    """Failure mode 33: no InterruptedError, and no socket listens but the one meant."""
    port = free_port()
    args = ("--workers", 2, *FAST, "signal_storm.py", port, handler)
    with Running(*args, cwd=apps) as running:
        told = running.wait_each("message", 2, timeout=60)
        for event in told.values():
            found = dict(event["message"])
            assert found.pop("storm") >= 20
            assert found == {"errors": [], "not listening": 0, "others listen": 0}
        running.wait_each("listening", 2, address=f"127.0.0.1:{port}")
        assert all(get(port) is True for _ in range(20))
        assert running.end() == 0


# ---- a master that stands still --------------------------------------------------------


@pytest.fixture
def peer():
    """The port of a server outside the cluster; it greets."""

    def greet():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(GENEROUS)


def test_workers_do_not_need_the_master(apps, peer):
    """Failure mode 35: stopped for 2 s, name look-ups and client connects go on."""
    args = ("--workers", 2, *FAST, "looks_up.py", "0")
    with Running(*args, cwd=apps) as running:
        running.wait_each("ready", 2)
        before, asked = running.pids(), 0
        expected = {"said": "hello"}
        stop(running.process.pid)
        enough = time.monotonic() + 2
        workers = set()
        while time.monotonic() < enough:
            facts = get(running.port, f"/{peer}/", timeout=10)
            workers.add(facts.pop("worker"))
            assert facts == expected
            asked += 1
        os.kill(running.process.pid, signal.SIGCONT)
        assert workers == {"0", "1"} and asked > 20
        assert running.reload()["ok"]
        exits = [running.wait_for("exit", pid=pid) for pid in before.values()]
        assert [end["asked"] for end in exits] == [True, True]
        assert running.count("exit") == 2
        assert running.end() == 0


def test_a_worker_dies_meanwhile(apps, peer):
    """Failure mode 35: what waits in its lane while the master is stopped is served after."""
    with Running("--workers", 2, *FAST, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        dead = Pidfd(running.pids()[0])
        with Load(running.port, clients=8) as load:
            load.more(20)
            stop(running.process.pid)
            dead.signal(signal.SIGKILL)
            assert dead.is_dead(GENEROUS)
            enough = time.monotonic() + 2
            until(lambda: time.monotonic() > enough)
            os.kill(running.process.pid, signal.SIGCONT)
            running.wait_for("ready", slot=0, where=lambda event: event["pid"] != dead.pid)
            load.more(100)
        assert len(load.failures()) <= 1  # what the killed one had accepted
        dead.close()
        assert running.end() == 0
