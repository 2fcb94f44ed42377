"""--prefix: what workers write is read by the master, and told with the slot before it."""

import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import quote

import pytest
from clients import get
from harness import GENEROUS, Running, comes_to_rest, let_go, links, until
from test_output import fill, read_until
from verbcase import Masters

FAST = ("--respawn", 0.1, "--drain-settle", 0.1, "--timeout", 10)
FILE = ("talks.py", "0")
WAYS = {
    "forked": ((), FILE),
    "exec'd": (("--env", "PYTHONHASHSEED=0"), FILE),
    "a command": ((), ("--", sys.executable, *FILE)),
    "by the preload library": (("--door", "preload"), FILE),
    "of a mold": (("--preload", "json"), FILE),
}


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


def do(running, code):
    assert get(running.port, "/" + quote(code)) == "done"


class Told:
    """A master that logs into a file, with its workers."""

    def __init__(self, apps, *options, workers=1, target=FILE, talk="", **more):
        self.path = apps / "log"
        words = (*FAST, "--prefix", "--log-file", self.path, "--workers", workers, *options)
        env = {"TALK": talk, **more.pop("env", {})}
        self.running = Running(*words, *target, cwd=apps, env=env, **more)

    def __enter__(self):
        self.running.__enter__()
        return self

    def __exit__(self, *how):
        self.running.__exit__(*how)

    def bytes(self):
        return self.path.read_bytes() if self.path.exists() else b""

    def has(self, what):
        until(lambda: what in self.bytes())

    def from_workers(self):
        return [line for line in self.bytes().split(b"\n") if line.startswith(b"[")]


# ---- lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_each_line_has_its_slot(way, apps):
    options, target = WAYS[way]
    talk = "print('out', os.environ['WORKER_ID']); print('err', file=sys.stderr)"
    with (apps / "out").open("wb") as out:
        words = (*FAST, "--prefix", "--workers", 2, *options, *target)
        with Running(*words, cwd=apps, env={"TALK": talk}, stdout=out) as running:
            running.wait_each("ready", 2)
            told = (apps / "out").read_text
            until(lambda: sorted(told().splitlines()) == ["[0] out 0", "[1] out 1"])
            errors = [line for line in running.stderr().splitlines() if line.startswith("[")]
            assert sorted(errors) == ["[0] err", "[1] err"]
            pids = running.pids()
            assert running.reload()["ok"]
            for pid in pids.values():
                running.wait_for("exit", pid=pid)
            until(lambda: len(told().splitlines()) == 4)
            assert running.end() == 0


def test_json_has_who_it_was(apps):
    talk = "os.write(1, b'caf\\xc3\\xa9 \\xff' + b'x' * 20000 + b'\\n')"
    with Told(apps, "--log-format", "json", talk=talk) as told:
        pid = told.running.wait_for("ready")["pid"]
        assert told.running.end() == 0
        lines = [json.loads(line) for line in told.bytes().splitlines()]
        first, second = [line for line in lines if line.get("stream") == "stdout"]
        for line in (first, second):
            assert (line["slot"], line["generation"], line["pid"]) == (0, 1, pid)
        assert first["partial"] and "partial" not in second
        assert first["message"].startswith("café \\xffxxx")
        assert (first["message"] + second["message"]).count("x") == 20001


@pytest.mark.parametrize("end", ["", "\\n"])
def test_a_line_that_is_longer_than_the_buffer_comes_in_pieces(end, apps):
    """Nothing of it is lost, and the next one is whole."""
    talk = f"os.write(1, b'0123456789' * 10000 + b'{end}'); os.write(1, b'\\nnext\\n')"
    with Told(apps, talk=talk) as told:
        told.running.wait_for("ready")
        told.has(b"[0] next\n")
        *pieces, last = [line for line in told.from_workers() if line != b"[0] "]
        assert last == b"[0] next"
        assert len(pieces) == 7
        assert b"".join(piece[4:] for piece in pieces) == b"0123456789" * 10000
        assert told.running.end() == 0


def test_bytes_stay_what_they_are(apps):
    everything = bytes(set(range(256)) - {10})
    with Told(apps, talk=f"os.write(1, {everything!r} + b'\\n')") as told:
        told.has(b"[0] " + everything + b"\n")
        told.running.wait_for("ready")
        assert told.running.end() == 0


def test_half_a_line_waits_for_its_end_or_the_workers(apps):
    with Told(apps) as told:
        pid = told.running.wait_for("ready")["pid"]
        do(told.running, "os.write(1, b'one'); os.write(2, b'whole\\n')")
        told.has(b"[0] whole\n")
        assert b"one" not in told.bytes()
        do(told.running, "os.write(1, b' two\\nthree')")
        told.has(b"[0] one two\n")
        os.kill(pid, signal.SIGKILL)
        told.running.wait_for("exit", pid=pid)
        told.has(b"[0] three\n")
        text = told.bytes()
        assert text.index(b"[0] three") < text.index(b"killed by SIGKILL")
        told.running.wait_for("ready")
        assert told.running.end() == 0


def test_the_last_words_of_one_that_dies_come_before_its_end(apps):
    """As much as a pipe holds, written in the moment before."""
    talk = "os.write(1, b''.join(b'last %d\\n' % n for n in range(6000))); os._exit(3)"
    with Told(apps, "--give-up", 1, talk=talk) as told:
        assert told.running.wait() == 1
        assert told.from_workers() == [b"[0] last %d" % n for n in range(6000)]
        text = told.bytes()
        assert text.index(b"[0] last 5999") < text.index(b"exited with code 3")


def test_the_last_words_at_the_masters_end(apps):
    talk = "import atexit; atexit.register(lambda: print('bye')); "
    talk += "import signal; signal.signal(15, lambda *_: sys.exit())"
    with Told(apps, workers=2, talk=talk) as told:
        told.running.wait_each("ready", 2)
        assert told.running.end() == 0
        assert sorted(told.from_workers()) == [b"[0] bye", b"[1] bye"]


FORKS = """
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()  # else it goes with its parent's group
    os.write(writer, b"x")
    open("go").read()
    os.write(1, b"of the child\\n")
    os._exit(0)
os.read(reader, 1)
"""


def test_a_child_that_keeps_the_pipe_is_heard_after_its_parents_end(apps):
    os.mkfifo(apps / "go")
    with Told(apps) as told:
        pid = told.running.wait_for("ready")["pid"]
        do(told.running, FORKS)
        os.kill(pid, signal.SIGKILL)
        told.running.wait_for("exit", pid=pid)
        told.running.wait_for("ready")
        comes_to_rest(told.running.pidfd)
        let_go(apps / "go")
        told.has(b"[0] of the child\n")
        assert told.running.end() == 0


def test_the_end_does_not_wait_for_a_child_that_keeps_the_pipe(apps):
    os.mkfifo(apps / "go")
    with Told(apps) as told:
        told.running.wait_for("ready")
        do(told.running, FORKS)
        assert told.running.end() == 0
        let_go(apps / "go")


# ---- nobody waits ------------------------------------------------------------------------


def test_a_reader_that_sleeps_holds_no_worker_up(apps):
    """The master's standard output is full, and a worker says 4 MiB."""
    reader, writer = os.pipe()
    fill(writer)
    words = (*FAST, "--prefix", "--workers", 2, *FILE)
    with Running(*words, cwd=apps, stdout=writer) as running:
        os.close(writer)
        running.wait_each("ready", 2)
        do(running, "[os.write(1, b'y' * 99 + b'\\n') for _ in range(1 << 16)]")
        do(running, "print('enough')")
        assert running.reload()["ok"]
        data = read_until(reader, b"lines lost")
        assert b"[0] yyyy" in data or b"[1] yyyy" in data
        assert running.end() == 0
    os.close(reader)


def test_one_that_floods_keeps_no_other_from_being_heard(apps):
    talk = "n = int(os.environ['WORKER_ID'])\nwhile n == 1: os.write(1, b'z' * 999 + b'\\n')"
    words = (*FAST, "--prefix", "--workers", 2, "--ready-timeout", "none", *FILE)
    more = {"env": {"TALK": talk}, "stdout": subprocess.DEVNULL}
    with Running(*words, cwd=apps, **more) as running:
        running.wait_for("ready", slot=0)
        do(running, "print('heard', file=sys.stderr, flush=True)")
        until(lambda: "[0] heard" in running.stderr())
        assert running.end(signal.SIGQUIT) == 0


def test_at_rest_there_is_nothing_to_do(apps):
    with Told(apps, workers=2, talk="print('here')") as told:
        told.running.wait_each("ready", 2)
        comes_to_rest(told.running.pidfd)
        assert told.running.end() == 0


def test_a_worker_has_its_own_two_pipes_and_no_others(apps):
    for command in (FILE, ("--", sys.executable, *FILE)):
        with Told(apps, workers=3, target=command) as told:
            told.running.wait_each("ready", 3)
            found = {pid: pipes_of(pid) for pid in told.running.pids().values()}
            assert all(len(ones) == 2 for ones in found.values()), found
            assert len(set().union(*found.values())) == 6
            assert told.running.end() == 0


def pipes_of(pid):
    return [link for link in links(pid) if link.startswith("pipe:")]


def test_no_pipe_is_left_of_those_who_went(apps):
    with Told(apps, workers=2) as told:
        told.running.wait_each("ready", 2)
        before = len(pipes_of(told.running.process.pid))
        for _ in range(3):
            pids = told.running.pids()
            assert told.running.reload()["ok"]
            for pid in pids.values():
                told.running.wait_for("exit", pid=pid)
        until(lambda: len(pipes_of(told.running.process.pid)) == before)
        assert told.running.end() == 0


# ---- recluster logs ----------------------------------------------------------------------


def ask(path, **request):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(GENEROUS)
    connection.connect(str(path))
    connection.sendall(json.dumps({"cmd": "logs", **request}).encode() + b"\n")
    return connection


def test_logs_shows_the_last_lines(masters):
    talk = "print('hello from', os.environ['WORKER_ID'])"
    with masters.start("--prefix", "--env", f"TALK={talk}", target=FILE) as one:
        one.wait_each("ready", 2)
        lines = masters.asked("logs")
        assert {"[0] hello from 0", "[1] hello from 1"} < set(lines)
        assert " INFO recluster: version " in lines[0]
        mine = masters.asked("logs", "--slot", 1)
        assert "[1] hello from 1" in mine and not any("worker 0" in line for line in mine)
        assert len(masters.asked("logs", "-n", 2)) == 2
        told = [json.loads(line) for line in masters.asked("logs", "--json")]
        assert any(line["message"] == "hello from 1" and line["slot"] == 1 for line in told)
        assert "'x' must be a whole number" in masters.refused("logs", "--slot", "x", code=2)
        assert one.end() == 0


def test_without_prefix_logs_says_what_to_do(masters):
    with masters.start() as one:
        one.wait_each("ready", 2)
        said = masters.refused("logs")
        assert "start it with --prefix" in said
        where = os.readlink(f"/proc/{one.process.pid}/fd/2").partition(" ")[0]
        assert where in said
        assert one.end() == 0


def test_who_follows_gets_what_is_said_from_then_on(masters):
    with masters.start("--prefix", target=FILE) as one:
        one.wait_each("ready", 2)
        path = masters.directory / f"{one.process.pid}.sock"
        with ask(path, follow=True, lines=0) as follower, follower.makefile("rb") as lines:
            assert json.loads(lines.readline()) == {"ok": True}
            do(one, "print('one'); print('two')")
            assert [json.loads(lines.readline())["message"] for _ in "12"] == ["one", "two"]
            comes_to_rest(one.pidfd)
        assert one.end() == 0


def test_who_follows_and_does_not_read_costs_lines_and_nothing_else(masters):
    with masters.start("--prefix", target=FILE) as one:
        one.wait_each("ready", 2)
        path = masters.directory / f"{one.process.pid}.sock"
        with ask(path, follow=True, lines=0) as sleeper:
            do(one, "[print('x' * 1000) for _ in range(5000)]")
            for _ in range(2):
                do(one, "print('still here')")
            with ask(path, lines=1) as other:
                assert json.loads(other.makefile("rb").readline()) == {"ok": True}
            lines = sleeper.makefile("rb")
            read = [json.loads(lines.readline()) for _ in range(200)]
            assert read[0] == {"ok": True}
            while True:
                do(one, "print('more')")  # what makes it say how many were lost
                line = json.loads(lines.readline())
                if line.get("event") == "lost":
                    break
            assert line["lines"] > 1000
        assert one.end() == 0


def test_more_than_some_do_not_follow(masters):
    with masters.start("--prefix", target=FILE) as one:
        one.wait_each("ready", 2)
        path = masters.directory / f"{one.process.pid}.sock"
        followers = [ask(path, follow=True) for _ in range(4)]
        for follower in followers:
            assert follower.recv(1)
        assert "4 others follow" in masters.refused("logs", "-f")
        followers.pop().close()
        until(lambda: b'{"ok":true}' in first_line(path))
        for follower in followers:
            follower.close()
        assert one.end() == 0


def first_line(path):
    with ask(path, follow=True) as follower:
        return follower.makefile("rb").readline()
