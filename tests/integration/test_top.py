"""`recluster top` on a terminal: what it shows, what its keys do, and that it leaves no trace."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
from clients import answers
from harness import GENEROUS, stop, until
from terminal import Terminal
from tmuxcase import OVER, Tmux, needs_tmux
from verbcase import Masters

GOLDEN = Path(__file__).parents[1] / "golden"


# ---- pictures ------------------------------------------------------------------------


def worker(pid, **more):
    return {
        "pid": pid, "generation": 3, "state": "serving", "age": 3723.0, "ready_for": 3722.0,
        "addresses": ["127.0.0.1:8000"], "processes": 1, "rss": 23 << 20, "pss": None, "cpu": 10.0,
        "connections": 12, "accepted": 100, "pressure": "free", "queued": 0, **more,
    }  # fmt: skip


def slot(index, *workers, **more):
    return {
        "slot": index, "workers": list(workers), "next_try": None, "drained": False,
        "restarts": 0, "last_error": None, "last_exit": None, "cpu": 10.0, "accepted": 100, **more,
    }  # fmt: skip


def status(at, seconds):
    """Of a master with everything that can be shown; `seconds` since the first look."""
    lanes = [
        {"address": "127.0.0.1:8000", "queued": 3, "backlog": 1024},
        {"address": "unix:/run/app.sock", "queued": 0, "backlog": 1024},
    ]
    slots = [
        slot(
            0,
            worker(4242, cpu=10.0 + seconds * 0.973, connections=1234),
            worker(
                999, generation=2, state="draining", age=86400.0 * 3, rss=1 << 31, connections=2
            ),
            accepted=100 + int(1234 * seconds),
        ),
        slot(
            1,
            worker(4243, cpu=10.0 + seconds * 0.05, queued=3, rss=int(99.9 * (1 << 20))),
            restarts=3,
            last_exit={"ago": 42.0, "what": "SIGKILL"},
            last_error={"ago": 42.0, "what": "killed by SIGKILL"},
            accepted=None,
        ),
        slot(
            2,
            next_try=1.5,
            restarts=27,
            last_exit={"ago": 4.0, "what": "boot: code 1"},
            last_error={"ago": 4.0, "what": "exited with code 1, before it was ready"},
        ),
        slot(3, drained=True, last_exit={"ago": 7200.0, "what": "asked"}),
    ]
    return {
        "at": at + seconds, "name": "server", "pid": 4200, "health": "degraded", "serving": 2,
        "wanted": 3, "metrics": None, "last_reload": {"ok": True, "why": None, "generation": 3,
        "ago": 185.0}, "version": "0.1.0", "door": "notify", "generation": 3, "reloading": None,
        "balance": "least_connections in the kernel", "closing": False, "unclaimed": [],
        "weights": {}, "canary": None, "slots": slots, "lanes": lanes,
    }  # fmt: skip


@contextlib.contextmanager
def told(path, statuses):
    """A master that gives these answers in turn, and the last one ever after."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve():
        left = list(statuses)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.makefile().readline()
                answer = {"ok": True, "status": left.pop(0) if len(left) > 1 else left[0]}
                connection.sendall(json.dumps(answer).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(GENEROUS)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_the_picture(tmp_path, width):
    """Compared letter for letter. `GOLDEN=write pytest ...` writes them anew."""
    path = tmp_path / "ctl.sock"
    two = [status(100.0, 0.0), status(100.0, 2.0)]
    with told(path, two), Terminal("top", "--control", path, width=width, height=20) as terminal:
        terminal.shows(lambda text: "97.3" in text)
        terminal.press("j")
        text = terminal.shows(lambda text: "slot 1: 3 restarts" in text)
        assert [line[:4].strip() for line in marked(terminal)] == ["1"]
        file = GOLDEN / f"top-{width}.txt"
        if os.environ.get("GOLDEN") == "write":
            file.write_text(text)
        assert text == file.read_text()
        terminal.press("q")
        assert terminal.ends() == 0 and terminal.is_as_before()


@needs_tmux
@pytest.mark.parametrize("width", [80, 60, 40])
def test_the_picture_is_tmux_s(tmp_path, width):
    """The same that our own small terminal makes of it."""
    path, wanted = tmp_path / "ctl.sock", (GOLDEN / f"top-{width}.txt").read_text()
    words = (sys.executable, "-m", "recluster", "top", "--control", path)
    with (
        told(path, [status(100.0, 0.0), status(100.0, 2.0)]),
        Tmux(*words, width=width, height=20) as tmux,
    ):
        tmux.shows(lambda text: "97.3" in text)
        tmux.press("j")
        tmux.shows(lambda text: text == wanted)
        assert [line[:4].strip() for line in tmux.marked()] == ["1"]
        tmux.press("q")
        assert tmux.shows(lambda text: "(over" in text) == f"{OVER}\n"


def marked(terminal):
    lines = terminal.screen.text().splitlines()
    return [lines[row] for row in sorted(terminal.screen.marked)]


def test_more_slots_than_lines(tmp_path):
    path = tmp_path / "ctl.sock"
    many = {**status(0.0, 0.0), "slots": [slot(index, worker(1000 + index)) for index in range(50)]}
    with told(path, [many]), Terminal("top", "--control", path, width=80, height=15) as terminal:
        assert "43 more" in terminal.shows(lambda text: "43 more" in text)
        terminal.press("j" * 9)
        terminal.shows(lambda text: "slot 9: " in text)
        assert [line.split()[1] for line in marked(terminal)] == ["1009"]
        terminal.resize(80, 10)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.shows(lambda text: "48 more" in text)
        assert [line.split()[1] for line in marked(terminal)] == ["1009"]


# ---- keys ----------------------------------------------------------------------------


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


@pytest.fixture
def running(masters):
    with masters.start() as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


def top(masters, *words, width=100):
    return Terminal("top", "--delay", "0.2", *words, width=width, cwd=masters.apps, env=masters.env)


def test_what_is_shown_is_so(masters, running):
    pids = running.pids()
    with top(masters) as terminal:
        text = terminal.shows(lambda text: all(str(pid) in text for pid in pids.values()))
        assert f"http_server (pid {running.process.pid})  generation 1  ready 2 of 2" in text
        assert f"127.0.0.1:{running.port} 0 of " in text
        answers(running.port, 20)
        os.kill(pids[1], signal.SIGKILL)
        running.wait_for("ready", slot=1, where=lambda one: one["pid"] != pids[1])
        terminal.shows(lambda text: "SIGKILL" in text and str(running.pids()[1]) in text)
        terminal.press("q")
        assert terminal.ends() == 0 and terminal.is_as_before()


def test_keys_restart_drain_resume_and_reload(masters, running):
    first = running.pids()
    with top(masters) as terminal:
        terminal.shows(lambda text: str(first[1]) in text)
        terminal.press("\x1b[B")
        terminal.shows(lambda text: "slot 1: " in text)
        terminal.press("r")
        terminal.shows(lambda text: "restart slot 1? y" in text)
        terminal.press("y")
        running.wait_for("exit", pid=first[1], asked=True)
        assert running.pids()[0] == first[0]
        terminal.press("d")
        terminal.shows(lambda text: "drain slot 1? y" in text)
        terminal.press("n")
        terminal.press("d")
        terminal.press("y")
        running.wait_for("exit", slot=1)
        terminal.shows(lambda text: "drained" in text)
        terminal.press("u")
        terminal.press("y")
        running.wait_for("ready", slot=1, where=lambda one: one["pid"] not in first.values())
        terminal.press("R")
        terminal.press("y")
        assert running.wait_for("reload")["ok"]
        terminal.shows(lambda text: "generation 2" in text)
        terminal.press("q")
        assert terminal.ends() == 0


def test_what_the_master_refuses_is_told(masters):
    with masters.start("--balance", "shared") as running, contextlib.ExitStack() as stack:
        running.wait_each("ready", 2)
        terminal = stack.enter_context(top(masters))
        terminal.shows(lambda text: "ready 2 of 2" in text)
        terminal.press("r")
        terminal.press("y")
        terminal.shows(lambda text: "restart slot 0: restart: slot 0: " in text)


# ---- ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_the_terminal_is_as_before(masters, running, number):
    with top(masters) as terminal:
        terminal.shows(lambda text: "ready 2 of 2" in text)
        assert terminal.screen.alternate and not terminal.screen.cursor
        terminal.process.send_signal(number)
        assert terminal.ends() == 128 + number
        assert terminal.is_as_before() and not terminal.process.stderr.read()


def test_the_terminals_own_keys(masters, running):
    """^C ends it, ^Z stops it with the shell's modes, and it comes back."""
    with top(masters) as terminal:
        terminal.shows(lambda text: "ready 2 of 2" in text)
        terminal.press("\x1a")
        pid = terminal.process.pid

        def stopped():
            terminal.read(0.01)
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        # Its group is an orphan here, where ^Z of the kernel's own would do nothing.
        until(stopped)
        while terminal.read(0.0):
            pass
        assert terminal.is_as_before()
        terminal.process.send_signal(signal.SIGCONT)
        terminal.shows(lambda text: terminal.screen.alternate and "ready 2 of 2" in text)
        terminal.press("\x03")
        assert terminal.ends() == 0
        assert terminal.is_as_before() and not terminal.process.stderr.read()


def test_the_masters_end_ends_it(masters, running):
    with top(masters) as terminal:
        terminal.shows(lambda text: "ready 2 of 2" in text)
        assert running.end() == 0
        assert terminal.ends() == 2
        assert terminal.is_as_before()
        [line] = terminal.process.stderr.read().splitlines()
        assert "no such master" in line


def test_a_master_that_is_stopped_is_waited_for(masters, running):
    with top(masters) as terminal:
        terminal.shows(lambda text: "ready 2 of 2" in text)
        stop(running.process.pid)
        terminal.shows(lambda text: "did not answer" in text)
        os.kill(running.process.pid, signal.SIGCONT)
        os.kill(running.pids()[0], signal.SIGKILL)
        terminal.shows(lambda text: "SIGKILL" in text)


def test_without_a_terminal_it_is_printed_once(masters, running):
    lines = masters.asked("top", "--delay", "0.1")
    assert lines[0].startswith(f"http_server (pid {running.process.pid})")
    rows = [line.split() for line in lines if line and line.split()[0] in ("0", "1")]
    assert {int(row[1]) for row in rows} == set(running.pids().values())
    assert all(row[5] != "-" for row in rows), "rates need two looks"
    assert "no master" in masters.refused("top", "nobody", code=2)
    assert "--delay" in masters.refused("top", "--delay", "x", code=2)
