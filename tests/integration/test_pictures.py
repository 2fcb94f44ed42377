"""What `dev` and `ls` look like at 80 and at 60 columns (tests/golden; `top` has its own).

RECLUSTER_GOLDEN=write makes the pictures anew. They are what a real tmux shows, where there is one:
each is compared with its capture too.
"""

import fcntl
import json
import os
import re
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest
from clients import get
from harness import edit
from test_dev import Dev
from tmuxcase import OVER, Tmux, needs_tmux
from verbcase import Masters

from recluster.verbs.look import picture

GOLDEN = Path(__file__).parents[1] / "golden"
WRITES = os.environ.get("RECLUSTER_GOLDEN") == "write"
CHANGES = [
    (r"^.*seccomp notification is refused.*\n", ""),
    (r"^.*workers start in .*\n", ""),  # another run of pytest has moved pytest-current
    (r"^\d\d:\d\d:\d\d", "02:28:14"),
    (r"version \S+, pid \d+", "version 0.1.0, pid 4242"),
    (r"control \S+?/\d+\.sock", "control /run/recluster/4242.sock"),
    (r"pid \d+\)", "pid 4243)"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:8000"),
    (r"(after|next try in) [\d.]+ m?s", r"\1 56 ms"),
    (r"new connections: .*", "new connections: auto is ..."),
]


def compare(name, lines):
    text = "".join(f"{line}\n" for line in lines)
    path = GOLDEN / name
    if WRITES:
        path.write_text(text)
    assert text == path.read_text()


def wrapped(line, width):
    """As a terminal does. What is blank at the end is not seen."""
    return [line[at : at + width].rstrip() for at in range(0, max(1, len(line)), width)]


def as_golden(text):
    """One line for each that was written; what differs from run to run is put right."""
    # It may watch before the worker is ready, or after.
    watching = re.search(r"^.*watching.*\n", text, re.MULTILINE).group()
    text = re.sub(r"(?<= ms\n)", watching, text.replace(watching, ""), count=1)
    for found, put in CHANGES:
        text = re.sub(found, put, text, flags=re.MULTILINE)
    return text


def shown_by_tmux(text, width):
    """How it wraps that."""
    program = "import sys; sys.stdout.write(sys.argv[1])"
    with Tmux(sys.executable, "-c", program, text, width=width, height=60) as tmux:
        return tmux.shows(lambda text: "(over" in text).replace(f"{OVER}\n", "")


def resize(fd, width):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", 24, width, 0, 0))


@pytest.mark.parametrize("width", [80, 60])
def test_dev(width, apps):
    pytest.importorskip("watchfiles")
    server = apps / "http_server.py"
    with Dev("http_server.py", "0", cwd=apps) as running:
        resize(running.ours, width)
        first = running.wait_for("ready")["pid"]
        running.shows("watching")
        edit(server, 'VERSION = "1"', 'raise SystemExit("VERSION is missing")')
        assert not running.wait_for("reload")["ok"]
        edit(server, 'raise SystemExit("VERSION is missing")', 'VERSION = "2"')
        assert running.wait_for("reload")["ok"]
        running.wait_for("exit", pid=first)
        assert get(running.port)["version"] == "2"
        assert running.end() == 0
        text = running.screen()
    lines = as_golden(text).splitlines()
    compare(f"dev-{width}.txt", [part for line in lines for part in wrapped(line, width)])


@needs_tmux
@pytest.mark.parametrize("width", [80, 60])
def test_dev_in_tmux(width, apps):
    """It runs there, at that width. Its lines are captured whole and, with pids and times put
    right, shown in another pane, which wraps them as it did."""
    pytest.importorskip("watchfiles")
    server = apps / "http_server.py"
    words = (sys.executable, "-m", "recluster", "dev", "http_server.py", "0")
    with Tmux(*words, width=width, height=60, cwd=apps) as tmux:

        def until(pattern):
            return re.search(pattern, tmux.shows(lambda text: re.search(pattern, text), "-J"))

        until("ready after")
        until("watching")
        edit(server, 'VERSION = "1"', 'raise SystemExit("VERSION is missing")')
        until("reload failed")
        edit(server, 'raise SystemExit("VERSION is missing")', 'VERSION = "2"')
        until("generation 3 serves after")
        until(r"\(gen 1, pid \d+\): killed by SIGTERM")
        assert get(int(until(r"listening on 127\.0\.0\.1:(\d+)")[1]))["version"] == "2"
        os.kill(int(until(r"version \S+, pid (\d+)")[1]), signal.SIGTERM)
        text = tmux.shows(lambda text: "(over" in text, "-J")
    wanted = (GOLDEN / f"dev-{width}.txt").read_text()
    assert shown_by_tmux(as_golden(text).replace(f"{OVER}\n", ""), width) == wanted


ROWS = [
    {
        "name": "shop",
        "pid": 4242,
        "addresses": ["127.0.0.1:8000", "[::1]:8000"],
        "generation": 12,
        "health": "ready",
    },
    {
        "name": "shop-canary",
        "pid": 991,
        "addresses": ["127.0.0.1:8001"],
        "generation": 1,
        "health": "degraded",
    },
    {"name": None, "pid": 7, "addresses": [], "generation": None, "health": "does not answer"},
]


@pytest.mark.parametrize("width", [80, 60])
def test_ls(width):
    lines = picture(ROWS, width)
    assert all(len(line) <= width for line in lines), lines
    compare(f"ls-{width}.txt", lines)


@needs_tmux
@pytest.mark.parametrize("width", [80, 60])
def test_ls_in_tmux(width):
    program = "import json, os, sys; from recluster.verbs.look import picture; "
    program += "print(*picture(json.loads(sys.argv[1]), os.get_terminal_size()[0]), sep='\\n')"
    words = (sys.executable, "-c", program, json.dumps(ROWS))
    with Tmux(*words, width=width) as tmux:
        text = tmux.shows(lambda text: "(over" in text)
    assert text == (GOLDEN / f"ls-{width}.txt").read_text() + f"{OVER}\n"


def test_ls_in_a_pipe_leaves_nothing_out(apps, tmp_path):
    """Whatever COLUMNS says."""
    masters = Masters(apps, tmp_path / "run")
    with masters.start("--name", "x" * 40, target=("two_addresses.py", "0")) as one:
        one.wait_each("ready", 2)
        masters.env["COLUMNS"] = "60"
        head, row = masters.asked("ls")
        assert head.split() == ["name", "pid", "addresses", "generation", "health"]
        assert len(row.split()) >= 6 and len(row) > 60
        one.signal(signal.SIGQUIT)
        assert one.wait() == 0
