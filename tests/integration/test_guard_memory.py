"""A guard keeps little of the master's memory, and what a foreign library needs in it."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from harness import Pidfd, Running, descendants, survivors, until

# Loaded before the C library, it answers a call that a guard makes, with what is on the heap.
INTERPOSER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdlib.h>
struct kept { int (*poll)(struct pollfd *, nfds_t, int); };
static struct kept *kept;
__attribute__((constructor)) static void begin(void)
{
    kept = malloc(sizeof *kept);
    kept->poll = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
}
int poll(struct pollfd *fds, nfds_t count, int ms) { return kept->poll(fds, count, ms); }
"""
pytestmark = pytest.mark.skipif(
    bool(os.environ.get("RECLUSTER_SANITIZE")), reason="a sanitizer's shadow stays as it is"
)


def dirty(pid):
    """KiB that are no file's: its own, or its parent's too."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^(?:Private|Shared)_Dirty:\s+(\d+) kB", told, re.M)))


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def guard_of(running, but=None):
    """The pid of its guard, of the next one too, when there is one."""

    def found():
        for pid in descendants(running.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "recluster-guard\n" and pid != but:
                    return pid
        return None

    return until(found)


def master_dies(running):
    family = [Pidfd(pid) for pid in descendants(running.process.pid)]
    running.signal(signal.SIGKILL)
    try:
        assert survivors(family, 5.0) == []
    finally:
        for pidfd in family:
            pidfd.signal(signal.SIGKILL)
            pidfd.close()


def test_a_guard_is_small_beside_its_master_and_does_its_work(apps):
    with Running("--workers", 2, "http_server.py", 0, cwd=apps) as running:
        running.wait_each("ready", 2)
        guard = guard_of(running)
        until(lambda: 4 * dirty(guard) < dirty(running.process.pid))
        os.kill(guard, signal.SIGKILL)  # one that is started later has more to give back
        after = guard_of(running, but=guard)
        until(lambda: 4 * dirty(after) < dirty(running.process.pid))
        master_dies(running)


def test_a_library_that_answers_its_calls_finds_what_it_needs(apps):
    source, library = apps / "early.c", apps / "early.so"
    source.write_text(INTERPOSER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    env = {"LD_PRELOAD": str(library)}
    with Running("--workers", 2, "http_server.py", 0, cwd=apps, env=env) as running:
        running.wait_each("ready", 2)
        guard = guard_of(running)
        assert until(lambda: state(guard).strip("RD")) == "S", "it waits, by the library's poll"
        master_dies(running)
