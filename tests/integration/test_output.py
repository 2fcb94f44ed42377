"""The master's log and its event stream, where nobody reads them: it supervises on."""

import contextlib
import ctypes
import json
import os
import pty
import select
import signal
import socket
import sys
import termios

import pytest
from harness import GENEROUS, Running, comes_to_rest, links, unstamped, until

OPTIONS = ("--workers", 2, "--respawn", 0.1, "--timeout", 10, "--drain-settle", 0.1)
FILE = ("http_server.py", "0")


def fill(fd):
    """Until it takes no more, as a worker that writes would; how many bytes."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(own, b"x" * 4095 + b"\n")
    os.close(own)
    return filled


def full_pipe():
    reader, writer = os.pipe()
    fill(writer)
    return reader, writer


def full_socket():
    reader, writer = socket.socketpair()
    with contextlib.suppress(BlockingIOError):
        while True:
            writer.send(b"x" * 4095 + b"\n", socket.MSG_DONTWAIT)
    return reader.detach(), writer.detach()


def stopped_terminal():
    """Under ^S."""
    reader, writer = pty.openpty()
    settings = termios.tcgetattr(writer)
    settings[0] |= termios.IXON
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(writer, termios.TCSANOW, settings)
    os.write(reader, b"\x13")
    until(lambda: not select.select([], [writer], [], 0)[1])  # the kernel's own thread takes it
    return reader, writer


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return None, writer


def full_disk():
    return None, os.open("/dev/full", os.O_WRONLY)


KINDS = {
    "full pipe": full_pipe,
    "full socket": full_socket,
    "stopped terminal": stopped_terminal,
    "closed pipe": closed_pipe,
    "full disk": full_disk,
}


@pytest.fixture(params=KINDS)
def ends(request):
    """(who could read or None, what the master writes to)."""
    reader, writer = KINDS[request.param]()
    yield reader, writer
    for fd in (reader, writer):
        if fd is not None:
            os.close(fd)


def read_until(reader, last):
    data = b""
    while last not in data:
        assert select.select([reader], [], [], GENEROUS)[0], data[-500:]
        data += os.read(reader, 1 << 16)
    return data


def wait_logged(running, words, times):
    until(lambda: sum(words in line for line in running.log()) >= times)


def test_a_log_that_nobody_reads(ends, apps):
    reader, writer = ends
    with Running(*OPTIONS, *FILE, cwd=apps, stderr=writer, env={"NO_COLOR": "1"}) as running:
        before = {slot: one["pid"] for slot, one in running.wait_each("ready", 2).items()}
        os.kill(before[1], signal.SIGKILL)
        running.wait_for("ready", slot=1)
        assert running.reload()["ok"]
        assert running.status()["generation"] == 2
        for pid in before.values():
            running.wait_for("exit", pid=pid)
        comes_to_rest(running.pidfd)
        assert os.get_blocking(writer), "O_NONBLOCK is everybody's"
        if reader is not None:
            if os.isatty(reader):
                os.write(reader, b"\x11")
            # What was kept comes by itself, in its order.
            text = unstamped(read_until(reader, b"generation 2 serves after").decode())
            assert text.count("recluster: ") == text.count("\nrecluster: ") + text.startswith("re")
            assert text.index("ready after") < text.index("killed by SIGKILL")
            comes_to_rest(running.pidfd)
        assert running.end() == 0


def obey_modes():
    """Root too: without CAP_DAC_OVERRIDE after the exec."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_pipe_that_may_not_be_opened_again(apps):
    """Another user's: `su app -c ... | cat`, or a container's."""
    reader, writer = full_pipe()
    os.fchmod(writer, 0)
    more = {"stderr": writer, "preexec_fn": obey_modes}
    with Running(*OPTIONS, *FILE, cwd=apps, **more) as running:
        pids = {slot: one["pid"] for slot, one in running.wait_each("ready", 2).items()}
        assert links(running.process.pid).count(os.readlink(f"/proc/self/fd/{writer}")) == 1, (
            "it was opened"
        )
        os.kill(pids[1], signal.SIGKILL)
        running.wait_for("ready", slot=1)
        comes_to_rest(running.pidfd)
        text = read_until(reader, b"killed by SIGKILL").decode()
        assert text.index("ready after") < text.index("killed by SIGKILL")
        comes_to_rest(running.pidfd)
        assert running.end() == 0
    for fd in (reader, writer):
        os.close(fd)


def test_the_end_does_not_wait_for_a_reader(ends, apps):
    _, writer = ends
    with Running(*OPTIONS, *FILE, cwd=apps, stderr=writer) as running:
        running.wait_each("ready", 2)
        assert running.end() == 0


@pytest.mark.parametrize("kind", ["closed pipe", "full disk"])
def test_events_to_nowhere(kind, apps):
    _, writer = KINDS[kind]()
    options = ("--events", writer, *OPTIONS)
    with Running(*options, *FILE, cwd=apps, pass_fds=[writer]) as running:
        os.close(writer)
        wait_logged(running, "ready after", 2)
        first, second = running.states()
        os.kill(first, signal.SIGKILL)
        wait_logged(running, "ready after", 3)
        assert second in running.states()
        assert running.end() == 0


def test_events_that_nobody_reads_are_counted(apps):
    """Each worker says 20,000 things before it serves."""
    reader, writer = os.pipe()
    command = ("--events", writer, *OPTIONS, "floods_channel.py", "0", "lines")
    with Running(*command, cwd=apps, pass_fds=[writer]) as running:
        os.close(writer)
        wait_logged(running, "ready after", 2)
        os.kill(next(iter(running.states())), signal.SIGKILL)
        wait_logged(running, "ready after", 3)
        comes_to_rest(running.pidfd)
        events = [json.loads(line) for line in read_until(reader, b'"lost"').splitlines()]
        lost = [event for event in events if event["event"] == "lost"]
        assert len(lost) == 1
        assert events[-1] is lost[0]
        assert sum(event["event"] == "message" for event in events) > 1000
        # All that was said, and: 3 x online, listening, ready; an exit; sometimes less is told.
        assert 60_000 <= len(events) - 1 + lost[0]["events"] <= 60_000 + 12
        comes_to_rest(running.pidfd)
        assert running.end() == 0
    os.close(reader)


def test_workers_get_nothing_of_it(apps):
    """Neither a forked nor an exec'd one has the second open file, or the events."""
    pipe = os.pipe()
    for command in (FILE, ("--", sys.executable, *FILE)):
        with Running(*OPTIONS, *command, cwd=apps, stderr=pipe[1]) as running:
            running.wait_each("ready", 2)
            for pid in running.pids().values():
                found = links(pid)
                assert found.count(os.readlink(f"/proc/self/fd/{pipe[1]}")) == 1  # its stderr
                assert len([link for link in found if link.startswith("pipe:")]) == 1
            assert running.end() == 0
    for fd in pipe:
        os.close(fd)


def test_what_the_terminal_cannot_show_is_written_out(apps):
    """Of a log whose encoding is ASCII."""
    (apps / "bad.py").write_text("raise ValueError('caf\\xe9 \\x1b[2J')\n")
    with Running(
        *OPTIONS, "--give-up", 2, "bad.py", cwd=apps, env={"PYTHONIOENCODING": "ascii"}
    ) as running:
        assert running.wait() == 1
        own = [line for line in running.log() if "ValueError" in line]
        assert own
        assert all("caf\\xe9 \\x1b[2J" in line for line in own), own
