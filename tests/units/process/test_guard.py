"""Owns: the guard kills what is on its list when the master is gone, and only that."""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess

import pytest

from ..harness import children, ready


@pytest.fixture
def guard(ffi, lib):
    """A guard without an engine."""
    guard, epoll = ffi.new("struct rc_guard *"), select.epoll()
    guard.source.fd = guard.line = -1
    assert lib.rc_guard_start(guard, epoll.fileno(), ffi.new("struct rc_guarded *")) == 0
    guard_of[guard] = epoll.fileno()
    yield guard
    lib.rc_guard_stop(guard, guard_of.pop(guard))
    epoll.close()


guard_of = {}  # the epoll set of each guard


def stop(lib, guard):
    lib.rc_guard_stop(guard, guard_of[guard])


def master_dies(ffi, lib, guard):
    """Returns when the guard has ended: what it killed is killed."""
    lib.rc_close(ffi.addressof(guard[0], "line"))
    assert ready(guard.source.fd)


class Sleeper:
    """A process group of its own: a leader and, with `child`, a child of it."""

    def __init__(self, child=False):
        script = "sleep 60 & echo $!; wait" if child else "echo 0; exec sleep 60"
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
        )
        self.pidfds = [os.pidfd_open(self.process.pid)]
        number = int(self.process.stdout.readline())
        if child:
            self.pidfds.append(os.pidfd_open(number))

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return not any(ready(fd, ms=0) for fd in self.pidfds)

    def dies(self):
        return all(ready(fd) for fd in self.pidfds)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # not reaped: the number is its own
        self.process.wait()
        self.process.stdout.close()
        for fd in self.pidfds:
            os.close(fd)


@pytest.fixture
def sleeper():
    made = []

    def make(child=False):
        made.append(Sleeper(child))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_groups_on_the_list_die_with_the_master_and_others_do_not(ffi, lib, guard, sleeper):
    added, removed, unknown, again = sleeper(child=True), sleeper(), sleeper(), sleeper()
    for one in (added, removed, again):
        assert lib.rc_guard_add(guard, one.pid) == 0
    for one in (removed, again):
        assert lib.rc_guard_remove(guard, one.pid) == 0
    assert lib.rc_guard_add(guard, again.pid) == 0
    assert lib.rc_guard_add(guard, again.pid) == 0
    assert all(one.alive() for one in (added, removed, unknown, again))
    master_dies(ffi, lib, guard)
    assert added.dies() and again.dies()
    assert removed.alive() and unknown.alive()


def test_adding_twice_is_undone_by_removing_once(ffi, lib, guard, sleeper):
    one, other = sleeper(), sleeper()
    for _ in range(2):
        lib.rc_guard_add(guard, one.pid)
    lib.rc_guard_remove(guard, one.pid)
    lib.rc_guard_remove(guard, other.pid)  # never added
    master_dies(ffi, lib, guard)
    assert one.alive() and other.alive()


def test_a_group_in_the_middle_of_the_list_may_be_removed(ffi, lib, guard, sleeper):
    sleepers = [sleeper() for _ in range(5)]
    for one in sleepers:
        lib.rc_guard_add(guard, one.pid)
    for at in (2, 0):
        lib.rc_guard_remove(guard, sleepers[at].pid)
    master_dies(ffi, lib, guard)
    assert sleepers[0].alive() and sleepers[2].alive()
    assert all(sleepers[at].dies() for at in (1, 3, 4))


def test_the_guard_holds_nothing_open_but_its_line(ffi, lib, guard, fds):
    read_end, write_end = os.pipe()  # a pipe's end of file shows who holds it
    stop(lib, guard)
    assert lib.rc_guard_start(guard, guard_of[guard], ffi.new("struct rc_guarded *")) == 0
    os.close(write_end)
    poll = select.poll()
    poll.register(read_end, 0)
    assert poll.poll(5000) == [(read_end, select.POLLHUP)]
    os.close(read_end)


def test_a_stopped_guard_never_blocks_the_master(lib, guard, sleeper):
    one = sleeper()
    assert lib.rc_guard_add(guard, one.pid) == 0
    os.kill(guard.pid, signal.SIGSTOP)
    state, told = 0, 0
    while state == 0 and told < 1 << 20:
        state = lib.rc_guard_remove(guard, 0x7FFFFFFF)
        told += 1
    assert state == -errno.EAGAIN
    stop(lib, guard)
    assert one.alive()  # who is stopped kills nobody, however it ends


def test_a_guard_that_is_ended_kills_nobody(lib, guard, sleeper):
    one = sleeper(child=True)
    assert lib.rc_guard_add(guard, one.pid) == 0
    stop(lib, guard)
    assert one.alive() and guard.pid == 0


def test_stopping_twice_and_telling_no_guard_are_harmless(lib, guard, fds):
    stop(lib, guard)
    before = fds()
    stop(lib, guard)
    assert fds() == before
    assert lib.rc_guard_add(guard, 1 << 30) == -errno.EBADF


# ---- with an engine ------------------------------------------------------------------


def exec_sleep(engine, number):
    lib = engine.lib
    engine.worker(number)
    program = engine.program("/bin/sleep", "60")
    pid = lib.rc_worker_exec(engine.pointer, number, lib.RC_DOOR_PRELOAD, program)
    assert pid > 0
    engine.wait_until(lambda events: (lib.RC_EVENT_DOOR, number, 0, b"") in events)
    return pid, os.pidfd_open(pid)


def test_a_killed_guard_is_replaced_and_knows_every_worker(engine, lib):
    workers = [exec_sleep(engine, number) for number in (1, 2)]
    guard = engine.struct.guard
    for _ in range(2):
        before = guard.pid
        watch = os.pidfd_open(before)
        os.kill(before, signal.SIGKILL)
        engine.wait_until(lambda _, before=before: guard.pid != before)
        assert ready(watch)
        os.close(watch)
    workers.append(exec_sleep(engine, 3))
    assert not any(ready(pidfd, ms=0) for _, pidfd in workers)
    lib.rc_close(engine.ffi.addressof(guard, "line"))  # what the master's death does
    assert all(ready(pidfd) for _, pidfd in workers)
    for _, pidfd in workers:
        os.close(pidfd)


def test_a_worker_s_end_takes_it_off_the_list(engine, lib, sleeper):
    """Else the guard would one day kill somebody who got the number."""
    pid, pidfd = exec_sleep(engine, 1)
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    real = engine.struct.guard.line
    engine.struct.guard.line = writer.fileno()  # what the guard is told
    assert lib.rc_worker_kill(engine.pointer, 1) == 0
    engine.wait_until(lambda events: (lib.RC_EVENT_EXIT, 1, -signal.SIGKILL, b"") in events)
    engine.struct.guard.line = real
    writer.close()
    assert reader.recv(99) == pid.to_bytes(4, "little") + b"\0\0\0\0"
    assert reader.recv(99) == b""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    reader.close()
    os.close(pidfd)


def test_freeing_an_engine_ends_its_workers_and_its_guard(new_engine, fds):
    before, others = fds(), children()
    engine = new_engine()
    _, pidfd = exec_sleep(engine, 1)
    guard = os.pidfd_open(engine.struct.guard.pid)
    engine.free()
    assert ready(pidfd, ms=0) and ready(guard, ms=0)
    os.close(pidfd)
    os.close(guard)
    assert fds() == before
    assert children() <= others
