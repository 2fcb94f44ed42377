"""Owns: how a worker's process begins and ends, where the program around it does not help."""

import errno
import os
import resource
import select
import signal
import subprocess
import sys
import time

import pytest

from ..harness import Clock, ready
from .test_guard import exec_sleep


@pytest.fixture
def ignored():
    """SIGCHLD is ignored: the kernel reaps."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


def ends(engine, number):
    """The value of its exit event."""
    events = engine.wait_until(
        lambda events: any(
            (kind, worker) == (engine.lib.RC_EVENT_EXIT, number) for kind, worker, _, _ in events
        )
    )
    return next(v for k, w, v, _ in events if (k, w) == (engine.lib.RC_EVENT_EXIT, number))


def test_a_worker_that_the_kernel_reaped_has_ended(engine, lib, ignored):
    """K3: waitid said ECHILD, and the readable pidfd was looked at for ever."""
    _, pidfd = exec_sleep(engine, 1)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert ends(engine, 1) == lib.RC_STATUS_UNKNOWN
    os.close(pidfd)


def test_a_worker_that_its_host_reaped_has_ended(engine, lib):
    """A host that waits for any child may be first."""
    pid, pidfd = exec_sleep(engine, 1)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert os.waitpid(pid, 0)[0] == pid
    assert ends(engine, 1) == lib.RC_STATUS_UNKNOWN
    os.close(pidfd)


def test_a_reaped_leader_s_group_ends_with_it(engine, lib, ignored):
    engine.worker(1)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    program = engine.program("/bin/sh", "-c", f"sleep 60 & echo $! >/proc/self/fd/{writer}; wait")
    leader = lib.rc_worker_exec(engine.pointer, 1, lib.RC_DOOR_PRELOAD, program)
    os.close(writer)
    assert ready(reader)
    child = os.pidfd_open(int(os.read(reader, 99)))
    os.kill(leader, signal.SIGKILL)
    ends(engine, 1)
    assert ready(child)
    os.close(child)
    os.close(reader)


def test_a_number_that_may_be_another_s_is_not_signalled(engine, lib, ignored):
    """Reaped already: by its number somebody else would be meant."""
    _, pidfd = exec_sleep(engine, 1)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert ready(pidfd)
    worker = lib.rc_find(engine.struct, 1)
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    kept, worker.pid = worker.pid, other.pid  # as if the kernel had given it away
    try:
        assert lib.rc_worker_kill(engine.pointer, 1) == -errno.ESRCH
        assert ends(engine, 1) == lib.RC_STATUS_UNKNOWN
        other_fd = os.pidfd_open(other.pid)
        assert not ready(other_fd, ms=0)
        os.close(other_fd)
    finally:
        worker.pid = kept
        os.kill(other.pid, signal.SIGKILL)
        os.close(pidfd)


def test_freeing_an_engine_waits_for_nobody_who_cannot_die(new_engine, fault):
    """One in state D has the signal, and stays. Here the signal does not get there."""
    engine = new_engine()
    pid, pidfd = exec_sleep(engine, 1)
    fault.arm(1, errno.EPERM, "syscall", 424, sticky=True)  # pidfd_send_signal
    began = time.monotonic()
    engine.free()
    assert fault.disarm() >= 1
    assert not ready(pidfd, ms=0)
    assert time.monotonic() - began < 30
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pidfd)


def test_an_engine_is_not_a_child_s(new_engine):
    """K5: whoever freed its copy killed the workers of its parent."""
    engine = new_engine()
    _, pidfd = exec_sleep(engine, 1)
    child = os.fork()
    if child == 0:
        try:
            engine.lib.rc_engine_free(engine.pointer)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert not ready(pidfd, ms=0)
    assert engine.lib.rc_worker_kill(engine.pointer, 1) == 0  # and it is in order
    assert ends(engine, 1) == -signal.SIGKILL
    os.close(pidfd)


def test_a_descriptor_of_who_is_reaped_is_an_error(engine, lib, ffi):
    """It was whatever errno was left: 0, and that was taken for a descriptor."""
    worker = engine.worker(1)
    worker.pid = os.getpid()
    ffi.errno = 0
    assert lib.rc_take_descriptor(worker, worker.pid, 0) == -errno.ESRCH


def test_more_hang_at_once_than_there_is_room_to_tell(engine, lib):
    """What did not fit into one turn's events was never told."""
    count = lib.RC_EVENTS_MIN + 88
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * count + 100
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("RLIMIT_NOFILE is too low here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        workers = [engine.worker(number) for number in range(1, count + 1)]
        for lanes, kind in ((1, lib.RC_EVENT_HUNG), (0, lib.RC_EVENT_TAKES)):
            for worker in workers:
                worker.hung_lanes, worker.hung_queued = lanes, 7
            lib.rc_deadline(engine.pointer, 1)  # something for the first turn
            told = engine.wait_until(
                lambda events, kind=kind: sum(event[0] == kind for event in events) == count
            )
            assert {w for k, w, _, _ in told if k == kind} == set(range(1, count + 1))
            assert {v for k, _, v, _ in told if k == kind} == {7 if lanes else 0}
    finally:
        engine.free()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_watched_descriptors_are_all_told(engine, lib):
    """More than a turn takes, none of them ever read."""
    pipes = [os.pipe() for _ in range(150)]
    for reader, writer in pipes:
        os.write(writer, b"x")
        assert lib.rc_watch(engine.pointer, reader) == 0
    wanted = {reader for reader, _ in pipes}
    engine.wait_until(
        lambda events: wanted <= {v for k, _, v, _ in events if k == lib.RC_EVENT_READABLE}
    )
    for fd in (fd for pair in pipes for fd in pair):
        os.close(fd)


def test_a_poll_goes_on_after_a_signal(lib):
    """A handler of the program's ended it early, and what was waited for seemed refused."""
    reader, writer = os.pipe()
    code = f"import os, time\nfor _ in range(20): os.kill({os.getpid()}, 10); time.sleep(0.01)"
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        other = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nos.write({writer}, b'x')"], pass_fds=[writer]
        )
        clock = Clock(30)
        assert lib.rc_poll(reader, select.POLLIN, int(clock.end * 1e6)) == select.POLLIN
        assert heard
        assert other.wait(30) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(reader)
        os.close(writer)
