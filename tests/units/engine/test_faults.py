"""Owns: whatever call fails, an engine leaks no descriptor, no child, and can go on.

Each case is run with its first, second, ... wrapped call failing, until it comes
to its end with no fault fired. A case makes what it needs, calls `attempt` with
the call to be tested, and cleans up; then nothing may be left.
"""

import contextlib
import errno
import os
import select
import socket

import pytest

from ..harness import Engine, check, children, packed, ready, spread, stream

FAULTS = [errno.EMFILE, errno.ENOMEM]
MOST = 60  # wrapped calls a case may make; more is a loop without end


class Trial:
    """One run of a case: attempt() calls with the n-th wrapped call failing."""

    def __init__(self, fault, n, error, sticky):
        self.fault, self.n, self.error, self.sticky = fault, n, error, sticky
        self.fired = False

    def attempt(self, function, *arguments):
        self.fault.arm(self.n, self.error, sticky=self.sticky)
        try:
            return function(*arguments)
        finally:
            self.fired = self.fault.disarm() > 0

    @property
    def errors(self):
        """What the call may return: without memory it is ENOMEM, whatever we ask for."""
        return {-self.error, -errno.ENOMEM} if self.fired else {0}


@pytest.fixture(params=[False, True], ids=["once", "lasting"])
def trials(request, fault, fds):
    """Yields trials until one ran without a fault; checks what each has left."""

    def run(error, least):
        others = children()
        for n in range(1, MOST):
            before, bad, trial = fds(), fault.bad_closes, Trial(fault, n, error, request.param)
            yield trial
            where = f"call {n} ({fault.last or 'none'})"
            assert fds() == before, where
            assert children() <= others, where
            assert fault.bad_closes == bad, f"{where}: something was closed twice"
            if not trial.fired:
                assert n > least, "the faults do not reach this function"
                return
        raise AssertionError("no end")

    return run


def failed(trial, result, *, may_succeed=False):
    """Whether the call failed: with the errno of the fault, and only with a fault."""
    if not may_succeed or result < 0:
        assert result in trial.errors, trial.fault.last
    return result < 0


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("flags", [0, 1], ids=["plain", "subreaper"])
def test_engine_new(ffi, lib, trials, error, flags):
    for trial in trials(error, least=4 + flags):
        out = ffi.new("rc_engine **")
        result = trial.attempt(lib.rc_engine_new, out, flags)
        assert (out[0] == ffi.NULL) == failed(trial, result)
        lib.rc_engine_free(out[0])


@pytest.mark.parametrize("error", FAULTS)
def test_watch(ffi, lib, trials, error):
    for trial in trials(error, least=2):
        reader, writer = os.pipe()
        with Engine(ffi, lib) as engine:
            if failed(trial, trial.attempt(lib.rc_watch, engine.pointer, reader)):
                assert lib.rc_unwatch(engine.pointer, reader) == -errno.ENOENT
                assert lib.rc_watch(engine.pointer, reader) == 0
            os.write(writer, b"x")
            assert engine.wait() == [(lib.RC_EVENT_READABLE, 0, reader, b"")]
            assert lib.rc_watch(engine.pointer, reader) == -errno.EEXIST
            assert lib.rc_unwatch(engine.pointer, reader) == 0
            assert engine.wait(0) == []
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("error", FAULTS)
def test_deadline(ffi, lib, trials, error):
    for trial in trials(error, least=1):
        with Engine(ffi, lib) as engine:
            if failed(trial, trial.attempt(lib.rc_deadline, engine.pointer, 1)):
                assert lib.rc_deadline(engine.pointer, 1) == 0
            told = engine.wait_until(lambda events: events, seconds=1)
            assert told == [(lib.RC_EVENT_DEADLINE, 0, 0, b"")]


@pytest.mark.parametrize("error", FAULTS)
def test_worker_new(ffi, lib, trials, error):
    for trial in trials(error, least=3):
        with Engine(ffi, lib) as engine:
            channel = ffi.new("int *", -1)
            if failed(trial, trial.attempt(lib.rc_worker_new, engine.pointer, 1, 0, channel)):
                assert channel[0] == -1
                engine.worker(1)
            assert lib.rc_worker_new(engine.pointer, 1, 0, channel) == -errno.EEXIST


@pytest.mark.parametrize("door", ["RC_DOOR_PRELOAD", "RC_DOOR_NOTIFY"])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EMFILE])
def test_worker_exec(request, module, trials, error, door):
    ffi, lib = module.ffi, module.lib
    if door == "RC_DOOR_NOTIFY":
        request.getfixturevalue("seccomp")
    for trial in trials(error, least=7):
        with Engine(ffi, lib) as engine:
            program = engine.program("/bin/true")
            for attempt in (trial.attempt, lambda function, *rest: function(*rest)):
                engine.worker(1)
                pid = attempt(lib.rc_worker_exec, engine.pointer, 1, getattr(lib, door), program)
                if pid > 0:
                    break
                assert trial.fired and pid == -error and lib.rc_find(engine.struct, 1) == ffi.NULL
            assert pid > 0
            events = engine.wait_until(lambda events: lib.RC_EVENT_GONE in [e[0] for e in events])
            assert (lib.RC_EVENT_EXIT, 1, 0, b"") in events
            assert lib.rc_worker_release(engine.pointer, 1) == 0


@pytest.mark.parametrize("error", FAULTS)
def test_guard_start(ffi, lib, trials, error):
    others = children()
    for trial in trials(error, least=4):
        with select.epoll() as epoll:
            guard, nothing = ffi.new("struct rc_guard *"), ffi.new("struct rc_guarded *")
            guard.source.fd = guard.line = -1
            result = trial.attempt(lib.rc_guard_start, guard, epoll.fileno(), nothing)
            if failed(trial, result, may_succeed=True):
                assert guard.pid == 0 and children() <= others
                assert lib.rc_guard_start(guard, epoll.fileno(), nothing) == 0
            lib.rc_guard_stop(guard, epoll.fileno())


@pytest.mark.parametrize("error", FAULTS)
def test_shim_open(ffi, lib, trials, error):
    for trial in trials(error, least=5):
        with Engine(ffi, lib) as engine:
            result = trial.attempt(lib.rc_shim_open, engine.pointer)
            assert (result < 0) == trial.fired
            assert lib.rc_shim_open(engine.pointer) == 0
            out = ffi.new("char[]", 128)
            length = lib.rc_shim_address(engine.pointer, 7, out, 128)
            name = ffi.string(out).split(b"/")[0]
            assert length == len(ffi.string(out))
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.connect(b"\0" + name)


@pytest.mark.parametrize("error", FAULTS)
def test_door_probe(seccomp, ffi, lib, trials, error):
    refused = ffi.new("const char **")
    for trial in trials(error, least=6):
        if failed(trial, trial.attempt(lib.rc_door_probe, refused)):
            assert ffi.string(refused[0])


@pytest.mark.parametrize("name", ["poll", "recvmsg"])
def test_an_interrupted_probe_goes_on(seccomp, ffi, lib, fault, name):
    refused = ffi.new("const char **")
    fault.arm(1, errno.EINTR, name)
    result = lib.rc_door_probe(refused)
    assert fault.disarm() and result == 0


# ---- lanes ---------------------------------------------------------------------------


def lane_in_steps(engine, trial, number, address, step):
    """Binds and listens as worker `number`; the fault hits `step`. Returns the socket
    and whether it listens, be it as a lane or past the door."""
    worker, sock = engine.worker(number), stream(socket.AF_INET, socket.SO_REUSEADDR)
    for name, call in (
        ("bind", lambda: engine.bind(worker, sock, address)),
        ("listen", lambda: engine.listen(worker, sock)),
    ):
        try:
            trial.attempt(call) if name == step else call()
        except OSError as error:
            assert name == step and -error.errno in trial.errors | {-errno.EADDRINUSE}
            assert trial.fired
            return sock, False
    return sock, True


@pytest.mark.parametrize("step", ["bind", "listen"])
@pytest.mark.parametrize("error", FAULTS)
def test_first_lane(ffi, lib, trials, error, step):
    for trial in trials(error, least=4):
        with Engine(ffi, lib) as engine:
            sock, listens = lane_in_steps(engine, trial, 1, ("127.0.0.1", 0), step)
            assert trial.fired or (listens and len(engine.lanes()) == 1)
            engine.steer(1)
            if engine.lanes():  # a lane is a good one
                assert spread({1: sock}, sock.getsockname(), 5) == {1: 5}
            sock.close()
            engine.bury(1)
            other = engine.lane(2)  # and the engine goes on
            other.close()


@pytest.mark.parametrize("step", ["bind", "listen"])
@pytest.mark.parametrize("error", FAULTS)
def test_second_lane_never_disturbs_the_first(ffi, lib, trials, error, step):
    for trial in trials(error, least=4):
        with Engine(ffi, lib) as engine:
            first = engine.lane(1)
            address = first.getsockname()
            engine.steer(1)
            second, listens = lane_in_steps(engine, trial, 2, address, step)
            assert listens or trial.fired
            assert spread({1: first}, address, 20) == {1: 20}
            third = engine.lane(3, address)
            engine.steer(3)
            assert spread({3: third}, address, 20) == {3: 20}
            for sock in (first, second, third):
                sock.close()


@pytest.mark.parametrize("error", FAULTS)
def test_a_steering_that_fails_says_so(ffi, lib, trials, error):
    """Else the caller would retire workers that still get connections."""
    for trial in trials(error, least=2):
        with Engine(ffi, lib) as engine:
            lanes = {1: engine.lane(1)}
            address = lanes[1].getsockname()
            lanes[2] = engine.lane(2, address)
            engine.steer(1)
            result = trial.attempt(lib.rc_steer, engine.pointer, [{"worker": 2, "weight": 1}], 1)
            for sock in lanes.values():
                sock.close()
            # That a lane cannot be watched costs a preference, and that a text cannot be
            # noted one attachment more; not the steering.
            assert result in trial.errors or trial.fault.last in ("epoll_ctl", "realloc")


# ---- the channel -----------------------------------------------------------------------


@pytest.mark.parametrize("error", FAULTS)
def test_channel(ffi, lib, trials, error):
    """No memory to read or to send: neither bytes nor lines are lost."""
    for trial in trials(error, least=2):
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours), contextlib.closing(theirs):
            channel, line = ffi.new("struct rc_channel *"), ffi.new("const char **")
            length = ffi.new("size_t *")
            theirs.sendall(b"in\n")

            def both(channel, fd):
                return lib.rc_channel_read(channel, fd), lib.rc_channel_send(channel, fd, b"o", 1)

            read, sent = trial.attempt(both, channel, ours.fileno())
            assert (min(read, sent) < 0) == trial.fired and min(read, sent, 0) in trial.errors
            if read < 0:
                read = lib.rc_channel_read(channel, ours.fileno())
            if sent < 0:
                sent = lib.rc_channel_send(channel, ours.fileno(), b"o", 1)
            assert (read, sent) == (3, 0)
            assert lib.rc_channel_line(channel, line, length) == 1
            assert ffi.unpack(line[0], length[0]) == b"in" and theirs.recv(9) == b"o\n"
            lib.rc_channel_free(channel)


@pytest.mark.parametrize("error", [errno.EPIPE, errno.ENOMEM])
def test_hello(ffi, lib, trials, error):
    for trial in trials(error, least=2):
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours), contextlib.closing(theirs):
            hello, door = ffi.new("struct rc_hello *"), ffi.new("int *", -1)

            def both(hello, door, ours, theirs):
                said = lib.rc_channel_greet(theirs, 0, 0)
                return said, said or lib.rc_channel_hello(ours, hello, door)

            said, heard = trial.attempt(both, hello, door, ours.fileno(), theirs.fileno())
            assert (heard == -error) == trial.fired and said in (0, -error)
            assert (door[0] >= 0) == (heard == 0)
            if door[0] >= 0:
                os.close(door[0])


def test_the_tests_count_what_they_say():
    """packed() is the sockaddr that the kernel knows."""
    assert packed(socket.AF_INET, ("127.0.0.1", 258))[2:8] == b"\1\2\x7f\0\0\1"
    assert len(packed(socket.AF_INET6, ("::1", 1))) == 28
    assert not ready(0, 0, 0)


@pytest.mark.parametrize("error", FAULTS)
def test_ring_open(ffi, lib, trials, error):
    """The page of bells, and the port at which workers ask for it; -EIO: too few random bytes."""
    for trial in trials(error, least=3):
        with Engine(ffi, lib) as engine:
            result = trial.attempt(lib.rc_ring_open, engine.pointer)
            assert result in {*trial.errors, -errno.EIO}, trial.fault.last
            check(lib.rc_ring_open(engine.pointer))
