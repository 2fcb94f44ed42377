"""What the guard does at the master's end where something is in its way, and for whom it
stays: a process that has left its worker's group and lives on."""

import ctypes
import json
import os
import select
import signal
from contextlib import contextmanager
from pathlib import Path

import deny
import pytest
from harness import Pidfd, Running, descendants, stop, survivors, until

HELPER = """
import errno, json, os, socket, sys
lock = sys.argv[1]
def attempt(call):
    try:
        call()
        return "fine"
    except OSError as error:
        return errno.errorcode[error.errno]
for line in open(lock + ".go"):
    open(lock, "w").close()
    server = socket.socket()
    done = [attempt(lambda: server.bind(("127.0.0.1", 0))), attempt(server.listen),
            attempt(lambda: os.unlink(lock)), os.path.exists(lock)]
    client = socket.create_connection(server.getsockname(), 10)
    server.close()
    with open(lock + ".done", "w") as out:
        json.dump(done, out)
"""
SERVER = """
import subprocess, sys
from http_server import *
if os.environ["WORKER_ID"] == "0":
    subprocess.Popen([sys.executable, "helper.py", "run.sock"], start_new_session=True)
http.server.HTTPServer(("127.0.0.1", 0), Handler).serve_forever()
"""
ANSWER = ["fine", "fine", "fine", False]


HANGING = """
import ctypes, json, mmap, os, socket, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.argtypes = [ctypes.c_long] * 4
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
where = ctypes.addressof(ctypes.c_char.from_buffer(page))
fault = libc.syscall(323, os.O_CLOEXEC, 0, 0)
api = ctypes.create_string_buffer(struct.pack("=QQQ", 0xAA, 0, 0))
range_ = ctypes.create_string_buffer(struct.pack("=QQQQ", where, 4096, 1, 0))
def say(what):
    with open("said", "w") as out:
        out.write(what)
if fault < 0 or libc.ioctl(fault, 0xC018AA3F, api) or libc.ioctl(fault, 0xC020AA00, range_):
    say("refused")
    os._exit(0)
sock, results = socket.socket(), []
bind = lambda: results.append(libc.syscall(49, sock.fileno(), where, 16))
thread = threading.Thread(target=bind)
thread.start()
os.read(fault, 32)  # the master has the call, and looks at the address
say("asked")
os.read(fault, 32)  # now the kernel does
address = bytearray(4096)
address[:8] = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s", 0, bytes([127, 0, 0, 1]))
source = (ctypes.c_char * 4096).from_buffer(address)
filled = struct.pack("=QQQQq", where, ctypes.addressof(source), 4096, 0, 0)
copy = ctypes.create_string_buffer(filled)
libc.ioctl(fault, 0xC028AA03, copy)
thread.join()
say(json.dumps([results, sock.getsockname()[0]]))
"""


def guard_of(running):
    """The pid of the master's guard."""
    found = [pid for pid in descendants(running.process.pid) if is_guard(pid)]
    assert len(found) == 1, found
    return found[0]


def is_guard(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "recluster-guard\n"
    except OSError:
        return False


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def adopting():
    """Orphans become children of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    try:
        yield
    finally:
        libc.prctl(36, 0, 0, 0, 0)


def answer(apps):
    """What the helper's calls say now."""
    with open(apps / "run.sock.go", "w") as go:
        go.write("x\n")
    with open(apps / "run.sock.done") as said:
        return json.load(said)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_outlives_the_master_can_go_on(end, apps):
    """D4: bind, listen and unlink of any file were answered ENOSYS for ever."""
    (apps / "helper.py").write_text(HELPER)
    (apps / "server.py").write_text(SERVER)
    os.mkfifo(apps / "run.sock.go")
    os.mkfifo(apps / "run.sock.done")
    hold = os.open(apps / "run.sock.go", os.O_RDWR)  # the helper's loop sees no end
    with adopting():
        with Running("--workers", 2, "server.py", cwd=apps) as running:
            running.wait_each("ready", 2)
            helper = next(
                pid
                for pid in descendants(running.process.pid)
                if b"helper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            watched = Pidfd(helper)
            assert answer(apps) == ANSWER
            notified = running.status()["door"] == "notify"
            running.signal(end)
            running.wait()
        guards = [pid for pid in descendants(os.getpid()) if is_guard(pid)]
        try:
            for _ in range(2):
                assert answer(apps) == ANSWER
            if notified:
                (guard,) = guards
                # At rest: one that looks again and again at a dead line would be running.
                until(lambda: state(guard) == "S")
                assert open_files(guard) == 1  # the helper's door; nothing that keeps a port
        finally:
            watched.signal(signal.SIGKILL)
        for pid in (helper, *guards):
            pidfd = Pidfd(pid)
            assert pidfd.is_dead(10)
            os.waitpid(pid, 0)
            pidfd.close()
        watched.close()
    os.close(hold)


@pytest.mark.skipif(os.geteuid() != 0, reason="userfaultfd for system calls is root's")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_a_call_that_a_killed_master_had_received_goes_on(apps):
    """It was answered by nobody: to receive it again is not to be had."""
    (apps / "helper.py").write_text(HANGING)
    (apps / "server.py").write_text(SERVER)
    os.mkfifo(apps / "said")
    said = os.open(apps / "said", os.O_RDWR)

    def says():
        assert select.select([said], [], [], 30)[0], "it waits for ever"
        return os.read(said, 4096).decode()

    with adopting():
        with Running("--workers", 1, "--door", "notify", "server.py", cwd=apps) as running:
            running.wait_each("ready", 1)
            if (first := says()) == "refused":
                pytest.skip("userfaultfd is refused here")
            assert first == "asked"
            helper = next(
                Pidfd(pid)
                for pid in descendants(running.process.pid)
                if b"helper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            running.signal(signal.SIGKILL)
            running.wait()
        try:
            assert json.loads(says()) == [[0], "127.0.0.1"]
        finally:
            helper.signal(signal.SIGKILL)
        for pid in descendants(os.getpid()):
            if is_guard(pid) or pid == helper.pid:
                os.waitpid(pid, 0)
        helper.close()
    os.close(said)


def test_the_guard_keeps_no_door_of_who_is_gone(apps):
    with Running("--workers", 2, "--drain-settle", 0.1, "http_server.py", 0, cwd=apps) as running:
        running.wait_each("ready", 2)
        guard = guard_of(running)
        doors = 0 if running.status()["door"] == "preload" else 2
        until(lambda: open_files(guard) == 1 + doors)
        for _ in range(2):
            assert running.reload()["ok"]
            running.wait_for("exit")
            running.wait_for("exit")
        until(lambda: open_files(guard) == 1 + doors)
        assert running.end() == 0
        assert survivors([Pidfd(guard)], 10) == []


def kill_master(running):
    family = [Pidfd(pid) for pid in descendants(running.process.pid)]
    running.signal(signal.SIGKILL)
    return family


def test_nothing_is_left_where_close_range_is_refused(apps):
    """K8: the guard kept the master's end of its own line, and never saw its end."""
    with Running(
        *("--workers", 2, "http_server.py", 0),
        cwd=apps,
        preexec_fn=lambda: deny.install(["close_range"]),
    ) as running:
        running.wait_each("ready", 2)
        assert open_files(guard_of(running)) <= 3
        family = kill_master(running)
        try:
            assert survivors(family, 10) == []
        finally:
            end(family)


def end(family):
    for pidfd in family:
        pidfd.signal(signal.SIGKILL)
        pidfd.close()


class Apart(Running):
    """In a session of its own, so that whoever adopts its orphans is of another."""

    def _popen(self, command, **more):
        return super()._popen(command, start_new_session=True, **more)


def test_a_stopped_guard_leaves_nothing(apps):
    """K8: until somebody continued it, all lived on. Grandchildren have only the guard."""
    with Apart("--workers", 2, "forks_children.py", 0, cwd=apps) as running:
        running.wait_each("ready", 2)
        until(lambda: len(descendants(running.process.pid)) >= 5)
        stop(guard_of(running))
        family = kill_master(running)
        try:
            assert survivors(family, 10) == []
        finally:
            end(family)


def test_a_master_with_a_stopped_guard_ends(apps):
    """It does not wait for it."""
    with Running("--workers", 2, "http_server.py", 0, cwd=apps) as running:
        running.wait_each("ready", 2)
        guard = guard_of(running)
        stop(guard)
        watched = Pidfd(guard)
        assert running.end() == 0
        assert watched.is_dead(10)
        watched.close()
