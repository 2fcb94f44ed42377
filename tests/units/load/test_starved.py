"""Who may run, and for how long its process has: whether patience with it is worth while."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..harness import Clock

SLEEPS = "print(flush=True); input()"
SLEEPS_IN_ALL = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(flush=True); input()
"""
# The first thread sleeps, another does not.
COMPUTES_BESIDE = """
import threading
def compute():
    while True: pass
threading.Thread(target=compute, daemon=True).start()
print(flush=True); input()
"""
CHILD_COMPUTES = """
import os
if os.fork() == 0:
    while True: pass
print(flush=True); input()
"""
THREAD_HAS_COMPUTED = """
import threading, time
def compute():
    while time.thread_time() < 0.1: pass
thread = threading.Thread(target=compute)
thread.start(); thread.join()
print(flush=True); input()
"""


@contextlib.contextmanager
def asleep(program):
    """The pid of a process that runs the program; its first thread sleeps, at the end."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout.readline()
            clock = Clock()
            while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
                assert clock.left_ms()
                os.sched_yield()
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def ask(ffi, lib):
    def wants_and_ran(process):
        ran = ffi.new("uint64_t *")
        return lib.rc_wants_cpu(process, ran), ran[0]

    return wants_and_ran


@pytest.mark.parametrize("program", [SLEEPS, SLEEPS_IN_ALL])
def test_who_sleeps_in_all_its_threads_wants_none(ask, program):
    with asleep(program) as pid:
        clock = Clock()
        before, now = None, ask(pid)
        while now[0] or now != before:  # until it has not run in between
            assert clock.left_ms()
            before, now = now, ask(pid)


def test_whose_other_thread_computes_may_wait_for_that(ask):
    """As a thread of Python waits for the one that holds the interpreter."""
    with asleep(COMPUTES_BESIDE) as pid:
        wants, first = ask(pid)
        assert wants
        clock = Clock()
        while ask(pid)[1] < first + 20_000_000:
            assert clock.left_ms()


def test_children_are_asked_too(ask):
    """Gunicorn's are the ones that accept."""
    with asleep(CHILD_COMPUTES) as pid:
        wants, first = ask(pid)
        assert wants
        clock = Clock()
        while ask(pid)[1] < first + 20_000_000:
            assert clock.left_ms()


def test_what_ended_threads_have_run_counts(ask):
    with asleep(THREAD_HAS_COMPUTED) as pid:
        assert ask(pid)[1] >= 100_000_000


def test_who_is_gone_wants_none(ask):
    with asleep(SLEEPS) as pid:
        pass
    assert ask(pid) == (False, 0)
