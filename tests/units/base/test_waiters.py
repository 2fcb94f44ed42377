"""Owns: whether a worker waits at a listening socket, as it is seen from outside (waiters.c)."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from ..harness import Clock, ready

WAYS = {
    "accept": "sock.accept()",
    "poll": "p = select.poll(); p.register(0, 1); p.register(sock, select.POLLIN); p.poll()",
    "select": "select.select([sock], [], [])",
    "select with a high number": "fd = fcntl.fcntl(sock, fcntl.F_DUPFD, 900); sock.close(); "
    "select.select([fd], [], [])",
    "epoll": "p = select.epoll(); p.register(sock, select.EPOLLIN); p.poll()",
    "a thread": "threading.Thread(target=sock.accept).start(); threading.Event().wait()",
    "a child": "os.fork() or sock.accept(); sock.close(); os.waitpid(-1, 0)",
}
ELSEWHERE = {
    "accept": "other.accept()",
    "poll": "p = select.poll(); p.register(other, select.POLLIN); p.poll()",
    "poll for writing": "p = select.poll(); p.register(sock, 0); p.poll()",
    "select": "select.select([other], [], [])",
    "select for errors": "select.select([], [], [sock])",
    "epoll": "p = select.epoll(); p.register(other, select.EPOLLIN); p.poll()",
    "sleep": "threading.Event().wait()",
    "a zombie": "os.fork() or os._exit(1); threading.Event().wait()",  # its /proc/PID/fd is root's
    # As gunicorn's: it has the socket, waits elsewhere, and its child is not there yet.
    "a parent": "os.fork() or os.execvp('sleep', ['sleep', '99']); select.select([other], [], [])",
}
BEGIN = """
import fcntl, os, select, socket, sys, threading
sock = socket.socket(fileno=int(sys.argv[1]))
other = socket.create_server(("127.0.0.1", 0))
print(flush=True)
"""


@pytest.fixture
def run(engine):
    """Runs it in a group of its own, as worker 1, and returns what asks about the socket."""
    with contextlib.ExitStack() as stack:

        def begin(code):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            process = subprocess.Popen(
                [sys.executable, "-Sc", BEGIN + code, str(sock.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[sock.fileno()],
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            assert ready(process.stdout)
            worker = engine.worker(1)
            worker.pid = process.pid
            inode = os.fstat(sock.fileno()).st_ino
            return lambda: engine.lib.rc_waiters_look(engine.struct, worker, inode)

        yield begin


def settles(look, wanted):
    clock = Clock()
    while look() != wanted:
        assert clock.left_ms()
        os.sched_yield()


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_there_is_seen(lib, run, way):
    settles(run(WAYS[way]), lib.RC_WAITS_THERE)


@pytest.mark.parametrize("way", ELSEWHERE)
def test_who_waits_elsewhere_is_idle(lib, run, way):
    settles(run(ELSEWHERE[way]), lib.RC_WAITS_IDLE)  # a child may be busy at first


@pytest.mark.parametrize(
    "code", ["while True: pass", "os.fork() or exec('while True: pass'); input()"]
)
def test_who_computes_is_busy(lib, run, code):
    settles(run(code), lib.RC_WAITS_BUSY)


@pytest.mark.skipif(os.geteuid() != 0, reason="wants another user, so root")
def test_who_may_not_be_looked_at_is_not_known(lib, run):
    look = run("sock.accept()")
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(-look())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (errno.EACCES, errno.EPERM)


@pytest.mark.parametrize("there", [True, False])
def test_a_kernel_that_does_not_tell_is_known_from_a_thread_that_has_ended(lib, run, fault, there):
    """gVisor has no /proc/PID/syscall."""
    look = run("sock.accept()")
    settles(look, lib.RC_WAITS_THERE)
    # Which of the files that are opened it is, is not said.
    for n in range(1, 5):
        seen = []

        def calls(name, seen=seen):
            seen.append(name)
            if name == b"access" and not there:
                fault.arm(1, errno.ENOENT, "access")

        fault.arm(n, errno.ENOENT, "open")
        with fault.before_each_call(calls):
            result = look()
        fault.disarm()
        if b"access" in seen:
            break
    assert result == (lib.RC_WAITS_BUSY if there else -errno.ENOSYS)


def test_memory_that_never_comes_is_not_waited_for(engine, lib, run, fault):
    look = run(WAYS["poll"])
    settles(look, lib.RC_WAITS_THERE)
    fault.arm(1, errno.EPERM, "process_vm_readv")
    assert look() == -errno.EPERM
