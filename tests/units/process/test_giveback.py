"""Owns: the guard keeps next to nothing of its host's memory, and what it needs."""

import mmap
import os
import re
import select
import subprocess
import threading
from pathlib import Path

import pytest

from ..harness import Clock, ready

HOST = 64 << 20  # bytes that the host has written
SANITIZED = os.environ.get("RECLUSTER_SANITIZE")


def dirty(pid):
    """Bytes of memory that are no file's, its own or its parent's too."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.findall(r"^(?:Private|Shared)_Dirty:\s+(\d+) kB", told, re.M)
    return sum(map(int, found)) << 10


def kill_and_see(ffi, lib, guard):
    """The guard's whole work: a record, the master's death, and an end of its own."""
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as sleeper:
        watch = os.pidfd_open(sleeper.pid)
        try:
            assert lib.rc_guard_add(guard, sleeper.pid) == 0
            lib.rc_close(ffi.addressof(guard[0], "line"))
            assert ready(watch) and ready(guard.source.fd)
        finally:
            sleeper.kill()
            os.close(watch)
    ended = os.waitid(os.P_PIDFD, guard.source.fd, os.WEXITED | os.WNOWAIT)
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)


@pytest.mark.skipif(bool(SANITIZED), reason="an access looks into a shadow of its own")
@pytest.mark.parametrize("from_a_thread", [False, True])
def test_a_guard_gives_its_host_s_memory_back(ffi, lib, from_a_thread):
    big = mmap.mmap(-1, HOST, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, HOST, mmap.PAGESIZE):
        big[at] = 1
    guard, epoll = ffi.new("struct rc_guard *"), select.epoll()
    guard.source.fd = guard.line = -1
    known = ffi.new("struct rc_guarded *")
    started = []

    def start():
        started.append(lib.rc_guard_start(guard, epoll.fileno(), known))

    if from_a_thread:  # its stack, and its errno, are elsewhere
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    else:
        start()
    assert started == [0]
    assert dirty(os.getpid()) > HOST
    clock = Clock()
    while dirty(guard.pid) > 2 << 20:  # no descriptor tells when it is done
        assert clock.left_ms() > 0
        os.sched_yield()
    kill_and_see(ffi, lib, guard)
    lib.rc_guard_stop(guard, epoll.fileno())
    epoll.close()
    big.close()
