"""What the doors must not take, and what they do not see: strangers at the preload door,
listeners by other calls, strangers among the lanes."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from clients import get
from harness import Running, edit, free_port, kept, until

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="wants another user, so root")


def descriptors(running):
    return len(kept(running.process.pid))


# ---- strangers at the preload door ------------------------------------------------------

STRANGER = """
import os, select, socket, sys, time
name, count, user = sys.argv[1], *map(int, sys.argv[2:])
if user:
    os.setuid(user)  # here: the interpreter may be out of its reach
waiting, sockets = select.poll(), {}
for _ in range(count):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect("\\0" + name)
    sockets[sock.fileno()] = sock
    waiting.register(sock, select.POLLIN)
print("silent", flush=True)
deadline = time.monotonic() + 30
while sockets and time.monotonic() < deadline:
    for fd, _ in waiting.poll(1000):
        waiting.unregister(fd)
        sockets.pop(fd).close()
print(len(sockets), flush=True)
"""


def door_of(running):
    """The abstract name of the preload door, which anybody can read."""
    pattern = re.compile(rf"@(recluster-{running.process.pid}-[0-9a-f]+)$", re.MULTILINE)
    return pattern.search(Path("/proc/net/unix").read_text())[1]


@pytest.mark.parametrize("user", [pytest.param(NOBODY, marks=root_only), 0])
def test_a_stranger_at_the_preload_door_costs_nothing(apps, user):
    options = ("--workers", 2, "--door", "preload", "--respawn", 0.1)
    with Running(*options, "http_server.py", 0, cwd=apps) as running:
        running.wait_each("ready", 2)
        before = descriptors(running)
        command = [sys.executable, "-c", STRANGER, door_of(running), "1000", str(user)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stranger:
            assert stranger.stdout.readline() == "silent\n"
            os.kill(running.pids()[0], signal.SIGKILL)
            running.wait_for("ready", slot=0)
            assert descriptors(running) <= before + 8
            assert stranger.stdout.readline() == "0\n", "not all were sent away"
            until(lambda: descriptors(running) <= before)
        assert get(running.port)


def test_who_is_silent_at_the_preload_door_is_sent_away(apps):
    options = ("--workers", 1, "--door", "preload")
    with Running(*options, "silent_callers.py", 0, cwd=apps) as running:
        running.wait_for("ready")  # its bind has waited for room
        assert get(running.port)
        until(lambda: descriptors(running) < 60)


# ---- what no door sees ------------------------------------------------------------------


@pytest.fixture
def unseen(apps):
    """Builds the program that listens by a call of this kind; skips where there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")

    def build(kind, *flags):
        program = apps / f"listens_{kind}"
        command = [compiler, "-O1", *flags, "-o", program, apps / "listens_unseen.c"]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            pytest.skip(f"cannot be built here: {built.stderr[-200:]}")
        if subprocess.run([program, kind, str(free_port()), "probe"]).returncode == 77:
            pytest.skip(f"this kernel has no such call: {kind}")
        return program

    return build


@pytest.mark.parametrize("kind", ["uring", "i386", "x32"])
def test_a_listener_that_no_door_sees_is_told_of(apps, unseen, kind):
    program, hidden, seen = unseen(kind), free_port(), free_port()
    with Running("--workers", 1, "--", program, kind, hidden, seen, cwd=apps) as running:
        running.wait_for("ready")
        assert running.wait_for("unseen", slot=0)["address"] == f"127.0.0.1:{hidden}"
        assert running.count("unseen") == 1
        told = [line for line in running.log() if "does not see" in line]
        assert len(told) == 1 and f"127.0.0.1:{hidden}" in told[0]


def test_a_worker_that_listens_unseen_only_is_told_of_when_it_is_late(apps, unseen):
    program, hidden = unseen("plain", "-static"), free_port()
    options = ("--workers", 1, "--door", "preload", "--ready-timeout", 0.5, "--give-up", 1)
    with Running(*options, "--", program, "plain", hidden, cwd=apps) as running:
        assert running.wait_for("unseen")["address"] == f"127.0.0.1:{hidden}"
        assert running.wait() == 1


def test_what_a_door_sees_is_not_unseen(apps):
    """Ports of its own, and lanes that others made."""
    with Running("--workers", 2, "two_addresses.py", 0, 0, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert running.reload()["ok"]
        assert running.count("unseen") == running.count("shared") == 0


# ---- strangers among the lanes ------------------------------------------------------------


def stranger_at(port):
    stranger = socket.socket()
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    stranger.bind(("127.0.0.1", port))
    stranger.listen()
    stranger.setblocking(False)
    return stranger


@pytest.mark.parametrize("balance", ["reuseport", "auto", "round_robin"])
def test_a_stranger_in_the_group_gets_nothing_and_is_told_of(apps, balance):
    options = ("--workers", 3, "--balance", balance, "--respawn", 0.1)
    with Running(*options, "http_server.py", 0, cwd=apps) as running:
        running.wait_each("ready", 3)

        def all_answer(version):
            for _ in range(60):
                assert get(running.port)["version"] == version
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(f"the stranger got {stranger.accept()}")

        with stranger_at(running.port) as stranger:
            all_answer("1")
            edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
            assert running.reload()["ok"]
            told = running.wait_for("shared")
            assert told["address"] == f"127.0.0.1:{running.port}"
            assert (told["listeners"], told["unsure"]) == (1, False)
            running.wait_each("exit", 3)  # lanes before the stranger's have gone
            all_answer("2")
            os.kill(running.pids()[0], signal.SIGKILL)
            running.wait_for("exit", slot=0, generation=2)
            running.wait_for("ready", slot=0, generation=2)
            all_answer("2")
        for _ in range(2):  # and when it has gone, and its index with it
            assert running.reload()["ok"]
            running.wait_each("exit", 3)
            for _ in range(60):
                assert get(running.port)["version"] == "2"
        assert running.count("shared") == 1
