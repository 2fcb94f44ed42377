"""Owns: the two doors' own work: trapped calls of a real child, and the shim's wire.

The child of the seccomp door is a bare Python that binds, listens and tells the
errno of each on its channel. The shim's side of the wire is spoken by the test.
"""

import errno
import os
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

import recluster

from ..harness import packed, ready, spread, stream

PIDFD_GETFD = 438  # on every architecture

(SHIM,) = map(str, Path(recluster.__file__).parent.glob("_shim*.so"))

CHILD = """
import os, socket, sys
channel, sock = int(sys.argv[1]), socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
for call in (lambda: sock.bind(('127.0.0.1', 0)), lambda: sock.listen(5)):
    try:
        call()
        error = 0
    except OSError as problem:
        error = problem.errno
    os.write(channel, b'%d\\n' % error)
os.read(channel, 1)
"""


# Through the library, or as it calls: with words beside the arguments.
TELLS = """
import ctypes, os, socket, sys
channel, (shim, host, words) = int(sys.argv[1]), sys.argv[2:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sock = socket.socket(family)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
address = family.to_bytes(2, sys.byteorder) + bytes(2)
if family == socket.AF_INET:
    address += socket.inet_pton(family, host) + bytes(8)
else:
    address += bytes(4) + socket.inet_pton(family, host) + bytes(4)
place = ctypes.create_string_buffer(address, len(address))
libc = ctypes.CDLL(None, use_errno=True)
if words:
    rest = [ctypes.c_ulong(int(word)) for word in words.split()]
    first = [ctypes.c_long(number) for number in (49, sock.fileno())]
    done = libc.syscall(*first, place, ctypes.c_ulong(len(address)), *rest)
else:
    done = ctypes.CDLL(shim, use_errno=True).bind(sock.fileno(), place, len(address))
os.write(channel, b'%d\\n' % (ctypes.get_errno() if done else 0))
sock.listen(5)
os.write(channel, b'0\\n')
os.read(channel, 1)
"""


class Child:
    """A worker process behind the seccomp door; `answers` are its two errnos."""

    def __init__(self, engine, number, before=lambda: None, text=CHILD, words=()):
        lib, self.engine = engine.lib, engine
        channel = engine.ffi.new("int *")
        assert lib.rc_worker_new(engine.pointer, number, 0, channel) == 0
        program = engine.program(sys.executable, "-ISc", text, str(channel[0]), *words)
        door = lib.RC_DOOR_NOTIFY
        assert lib.rc_worker_exec(engine.pointer, number, door, program) > 0
        engine.wait_until(lambda events: (lib.RC_EVENT_DOOR, number, 0, b"") in events)
        before()
        self.events = engine.wait_until(lambda events: len(self.told(events, number)) == 2)
        self.answers = self.told(self.events, number)

    def told(self, events, number):
        wanted = (self.engine.lib.RC_EVENT_MESSAGE, number)
        return [int(text) for kind, worker, _, text in events if (kind, worker) == wanted]


def test_a_child_s_listener_becomes_a_lane(seccomp, engine, lib):
    child = Child(engine, 1)
    assert child.answers == [0, 0]
    ((worker, chosen, queued, _, address),) = engine.lanes()
    assert (worker, chosen, queued) == (1, False, 0)
    assert (lib.RC_EVENT_LISTENING, 1, 1, address.encode()) in child.events
    second = Child(engine, 2)
    assert second.answers == [0, 0]
    assert [facts[4] for facts in engine.lanes()] == [address, address]
    engine.lib.rc_worker_kill(engine.pointer, 1)
    events = engine.wait_until(lambda events: lib.RC_EVENT_GONE in [e[0] for e in events])
    assert [e[:2] for e in events] == [(lib.RC_EVENT_EXIT, 1), (lib.RC_EVENT_GONE, 1)]


@pytest.mark.parametrize(
    "case",
    [
        ("syscall", PIDFD_GETFD, 1, errno.EMFILE, [errno.EMFILE, None]),
        ("syscall", PIDFD_GETFD, 2, errno.EMFILE, [0, errno.EMFILE]),
        ("syscall", PIDFD_GETFD, 2, errno.ENOMEM, [0, errno.ENOMEM]),
        ("fcntl", 0, 1, errno.EMFILE, [errno.EMFILE, None]),
        ("fcntl", 0, 2, errno.EMFILE, [0, errno.EMFILE]),
        ("eventfd", 0, 1, errno.EMFILE, [errno.EMFILE, None]),
        ("calloc", 0, 1, errno.ENOMEM, [errno.ENOMEM, None]),
        ("calloc", 0, 2, errno.ENOMEM, [errno.ENOMEM, None]),
        ("calloc", 0, 3, errno.ENOMEM, [0, errno.ENOMEM]),
        ("realloc", 0, 1, errno.ENOMEM, [0, errno.ENOMEM]),
        ("epoll_ctl", 0, 1, errno.ENOSPC, [0, errno.ENOSPC]),
        ("listen", 0, 1, errno.EADDRINUSE, [0, errno.EADDRINUSE]),
        ("ioctl", 0, 1, errno.ENOMEM, [0, 0]),
    ],
    ids=lambda case: "-".join(map(str, (case[0], case[2], errno.errorcode[case[3]]))),
)
def test_what_fails_in_the_master_fails_in_the_worker(seccomp, new_engine, fault, fds, case):
    """Never is a call let pass that we could not look at: the kernel would put a
    listener we do not know into the group, and each index behind it would be wrong."""
    name, number, n, error, answers = case
    before, engine = fds(), new_engine()
    # The reading of two short lines, too, needs memory; it comes after the calls.
    child = Child(engine, 1, before=lambda: fault.arm(n, error, name, number))
    assert fault.disarm() == 1
    first, second = child.answers
    assert first == answers[0]
    if answers[1] is not None:
        assert second == answers[1]
        assert len(engine.lanes()) == (second == 0)
    engine.free()
    assert fds() == before


def threads():
    return set(os.listdir("/proc/self/task"))


def test_the_thread_that_reads_is_gone_when_it_must_be_and_else_soon(seccomp, engine, lib):
    before = threads()
    Child(engine, 1)
    lib.rc_readers_rest(engine.pointer)
    assert threads() == before
    Child(engine, 2)  # a new one
    until = time.monotonic() + 30
    while threads() != before:
        assert time.monotonic() < until
    Child(engine, 3)  # the one before has ended unasked
    engine.free()
    assert threads() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_that_the_library_tells_is_not_read_in_memory(seccomp, engine, fault, host):
    """No thread is made that would read it."""
    child = Child(
        engine,
        1,
        before=lambda: fault.arm(1, errno.EMFILE, "eventfd"),
        text=TELLS,
        words=(SHIM, host, ""),
    )
    assert fault.disarm() == 0
    assert child.answers == [0, 0]
    ((*_, address),) = engine.lanes()
    assert address.rpartition(":")[0].strip("[]") == host


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another number of bind(2)")
@pytest.mark.parametrize("words", ["2 3 4", f"{0x1234 << 32 | 80 << 16 | 2} {0x7F000001} 0"])
def test_what_lies_by_chance_where_the_library_tells_an_address_is_none(seccomp, engine, words):
    child = Child(engine, 1, text=TELLS, words=(SHIM, "127.0.0.1", words))
    assert child.answers == [0, 0]
    ((*_, address),) = engine.lanes()
    assert address.startswith("127.0.0.1:") and not address.endswith(":80")


# ---- the shim's wire -----------------------------------------------------------------


class Shim:
    """What a preload shim says to the master."""

    def __init__(self, engine):
        self.engine = engine
        assert engine.lib.rc_shim_open(engine.pointer) == 0
        out = engine.ffi.new("char[]", 128)
        assert engine.lib.rc_shim_address(engine.pointer, 1, out, 128) > 0
        name, worker, token = engine.ffi.string(out).split(b"/")
        assert worker == b"1"
        self.address, self.token = b"\0" + name, int(token, 16)

    def call(self, operation, sock, address=b"", *, magic=0x72637333, token=None, cut=0, more=()):
        """(passed, errno) of the reply, or None if the master hung up."""
        token = self.token if token is None else token
        request = struct.pack(
            "=IIQIiiI110s2x", magic, operation, token, 1, sock.fileno(), 5, len(address), address
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as wire:
            wire.connect(self.address)
            socket.send_fds(wire, [request[: len(request) - cut]], [sock.fileno(), *more])
            self.engine.wait()  # the connection
            self.engine.wait()  # the call
            assert ready(wire)
            reply = wire.recv(99)
        return struct.unpack_from("=Iii", reply)[1:] if reply else None

    def bind(self, sock, **how):
        """The kernel binds it, for the process itself."""
        reply = self.call(1, sock, packed(sock.family, ("127.0.0.1", 0)), **how)
        if reply == (1, 0):
            sock.bind(("127.0.0.1", 0))
        return reply


@pytest.fixture
def sock():
    with stream(socket.AF_INET, socket.SO_REUSEADDR) as sock:
        yield sock


def test_a_shim_binds_and_listens(engine, sock):
    engine.worker(1)
    shim = Shim(engine)
    assert shim.bind(sock) == (1, 0)
    assert shim.call(2, sock) == (0, 0)
    engine.steer(1)
    assert spread({1: sock}, sock.getsockname(), 10) == {1: 10}


@pytest.mark.parametrize("how", [{"token": 1}, {"magic": 1}, {"cut": 8}])
def test_who_does_not_know_the_token_gets_no_answer(engine, sock, fds, how):
    engine.worker(1)
    shim, before = Shim(engine), fds()
    assert shim.bind(sock, **how) is None
    assert sock.getsockname() == ("0.0.0.0", 0)
    assert fds() == before


@pytest.mark.parametrize("count", [2, 3, 20])
def test_more_descriptors_than_one_leak_nothing(engine, sock, fds, count):
    engine.worker(1)
    shim, before = Shim(engine), fds()
    shim.bind(sock, more=[0] * (count - 1))
    assert fds() == before


def test_what_is_left_of_a_dead_worker_may_not_serve(engine, sock):
    worker, shim = engine.worker(1), Shim(engine)
    assert shim.bind(sock) == (1, 0)
    worker.dead = True
    assert shim.call(2, sock) == (0, errno.ENOSYS)
    engine.bury(1)
    assert shim.bind(sock) == (0, errno.ENOSYS)
    assert engine.lanes() == []


def test_a_shim_that_hangs_up_or_stays_silent_costs_nothing_in_the_end(new_engine, fds):
    before = fds()
    engine = new_engine()
    shim = Shim(engine)
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(5)]
    for wire in silent:
        wire.connect(shim.address)
        engine.wait()
    within = fds()
    silent.pop().close()
    engine.wait()
    assert len(fds()) == len(within) - 2
    engine.free()
    for wire in silent:
        assert wire.recv(1) == b""
        wire.close()
    assert fds() == before


def test_the_child_s_end_of_a_channel_keeps_its_number(engine, lib):
    channel = engine.ffi.new("int *")
    assert lib.rc_worker_new(engine.pointer, 1, 0, channel) == 0
    code = f"import os; os.write({channel[0]}, b'here\\n')"
    program = engine.program(sys.executable, "-ISc", code)
    assert lib.rc_worker_exec(engine.pointer, 1, lib.RC_DOOR_PRELOAD, program) > 0
    events = engine.wait_until(lambda events: lib.RC_EVENT_GONE in [e[0] for e in events])
    kinds = [event[0] for event in events]
    assert kinds == [lib.RC_EVENT_DOOR, lib.RC_EVENT_MESSAGE, lib.RC_EVENT_EXIT, lib.RC_EVENT_GONE]
    assert events[1][3] == b"here" and events[2][2] == 0


@pytest.mark.usefixtures("seccomp")
@pytest.mark.parametrize("trapped", [False, True])
def test_look_ups_and_removals_do_not_wait_for_the_master(engine, lib, tmp_path, trapped):
    """The engine is never turned: what the filter traps waits for ever."""
    channel = engine.ffi.new("int *")
    assert lib.rc_worker_new(engine.pointer, 1, 0, channel) == 0
    code = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0))\n"
        "open(sys.argv[1], 'w').close(); os.unlink(sys.argv[1])\n"
        "if sys.argv[2] == 'True':\n"
        "    socket.socket(socket.AF_UNIX).bind('/x')\n"
    )
    program = engine.program(sys.executable, "-ISc", code, str(tmp_path / "x"), str(trapped))
    pid = lib.rc_worker_exec(engine.pointer, 1, lib.RC_DOOR_NOTIFY, program)
    assert pid > 0
    pidfd = os.pidfd_open(pid)
    assert ready(pidfd, ms=1000 if trapped else 20000) is not trapped
    os.close(pidfd)
