"""Owns: what the processes of a worker use, and the files in /proc that stay open for that."""

import errno
import os
import resource
import signal
import sys
from contextlib import contextmanager

import pytest

from ..harness import Clock

LARGE = (sys.executable, "-c", "import time; x = b'x' * (64 << 20); time.sleep(60)")
THREAD = """
import subprocess, threading, time
def child():
    subprocess.run(["sleep", "60"])
threading.Thread(target=child).start()
"""


@pytest.fixture
def used(engine, ffi, lib):
    """What rc_usage says of a worker, or -errno."""

    def of(number=1):
        out = ffi.new("struct rc_usage *")
        error = lib.rc_usage(engine.pointer, number, out)
        return error or out

    return of


def start(engine, *words):
    """The worker's pid; it has executed the program."""
    lib = engine.lib
    engine.worker(1)
    executed, until_exec = os.pipe()
    pid = lib.rc_worker_exec(engine.pointer, 1, lib.RC_DOOR_PRELOAD, engine.program(*words))
    os.close(until_exec)
    assert pid > 0 and os.read(executed, 1) == b""
    os.close(executed)
    return pid


def grown(engine, used):
    """What LARGE uses once it has all of it."""
    clock = Clock(30)
    while (found := used()).resident < 64 << 20:
        engine.wait(min(10, clock.left_ms()))
    return found


def kept(engine):
    return [fd for fd in engine.lib.rc_find(engine.struct, 1).procfiles if fd >= 0]


def numbers():
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def at_most(descriptors):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_of_a_process_alone(engine, used):
    pid = start(engine, *LARGE)
    found = grown(engine, used)
    assert list(found.pids)[: found.count] == [pid] and found.cpu_ticks >= 0
    assert found.descriptors in (0, len(os.listdir(f"/proc/{pid}/fd")))


@pytest.mark.parametrize(
    "words",
    [("/bin/sh", "-c", "sleep 60 & wait"), (sys.executable, "-c", THREAD)],
    ids=["main thread", "other thread"],
)
def test_children_count_whichever_thread_has_them(engine, used, words):
    pid, clock = start(engine, *words), Clock(30)
    while (found := used()).count < 2:
        assert not clock.is_over()
        engine.wait(10)
    pids = list(found.pids)[: found.count]
    with open(f"/proc/{pids[1]}/status") as file:
        assert f"PPid:\t{pid}\n" in file.read()


def test_the_files_stay_open_until_the_end(engine, used, lib):
    before = numbers()
    pid = start(engine, *LARGE)
    used()
    files, opened = kept(engine), numbers()
    assert len(files) == 3
    used()
    assert kept(engine) == files and numbers() == opened
    os.kill(pid, signal.SIGKILL)
    engine.wait_until(lambda events: any(one[0] == lib.RC_EVENT_EXIT for one in events))
    assert used() == -errno.ESRCH and not numbers() & {str(fd) for fd in files} - before


def test_a_zombie_that_is_not_reaped_uses_nothing_more(engine, used):
    pid = start(engine, *LARGE)
    grown(engine, used)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert used().resident == 0 and used().count == 1


def test_where_descriptors_are_scarce_none_is_kept(engine, used):
    start(engine, *LARGE)
    before = numbers()
    lowest = os.dup(0)
    os.close(lowest)
    with at_most(lowest + 2):
        grown(engine, used)
    assert kept(engine) == [] and numbers() == before
    with at_most(lowest):
        assert used() == -errno.EMFILE
    grown(engine, used)
    assert len(kept(engine)) == 3


def test_a_file_that_cannot_be_read_is_opened_anew(engine, used):
    start(engine, *LARGE)
    used()
    for fd in kept(engine):
        os.dup2(os.open("/", os.O_PATH), fd)  # pread(2) of it is EBADF
    assert used() == -errno.EBADF
    grown(engine, used)


def test_of_whom_there_is_nothing(engine, used):
    assert used(99) == -errno.ESRCH
    engine.worker(1)
    assert used(1) == -errno.ESRCH, "it is not born yet"
