"""The master's slice of a CPU: short while it looks at workers, never a worker's."""

import ctypes
import errno
import os
import platform
import struct

import pytest

from ..harness import Clock, Engine, check, connect
from ..programs import WAITS, programs_as_workers

SYS_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}.get(platform.machine())


def slice_ns(thread=0):
    """sched_getattr(2): sched_runtime."""
    if SYS_SCHED_GETATTR is None:
        pytest.skip("the number of sched_getattr is not known for this machine")
    room = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(SYS_SCHED_GETATTR, thread, room, 48, 0) == 0
    return struct.unpack_from("=Q", room, 24)[0]


@pytest.fixture
def short_slice(new_engine, lib):
    engine = new_engine()
    before = slice_ns()
    lib.rc_slice_short(engine.struct, True)
    try:
        if slice_ns() == before:
            pytest.skip("this kernel has no slices of a thread's own (Linux 6.12)")
        yield engine, before
    finally:
        lib.rc_slice_short(engine.struct, False)


def test_it_is_short_and_ends(short_slice, lib):
    engine, before = short_slice
    assert slice_ns() == 100_000 < before
    nice = os.nice(0)
    lib.rc_slice_short(engine.struct, False)
    assert (slice_ns(), os.nice(0)) == (before, nice)


def test_where_it_is_refused_all_goes_on(new_engine, lib, fault):
    if SYS_SCHED_GETATTR is None:
        pytest.skip("the number of sched_getattr is not known for this machine")
    engine, before = new_engine(), slice_ns()
    fault.arm(1, errno.EPERM, "syscall", SYS_SCHED_GETATTR, sticky=True)
    lib.rc_slice_short(engine.struct, True)
    lib.rc_slice_short(engine.struct, False)
    assert fault.disarm() == 2
    assert slice_ns() == before


def test_it_ends_with_the_engine(short_slice, ffi, lib):
    _, before = short_slice
    lib.rc_slice_short(short_slice[0].struct, False)
    with Engine(ffi, lib) as engine:
        lib.rc_slice_short(engine.struct, True)
        assert slice_ns() == 100_000
    assert slice_ns() == before


def test_a_worker_has_the_usual_one(short_slice, lib):
    engine, before = short_slice
    with engine.lane(1):
        program = engine.program("/bin/sleep", "1000")
        pid = check(lib.rc_worker_exec(engine.pointer, 1, lib.RC_DOOR_PRELOAD, program))
        clock = Clock()
        while os.path.basename(os.readlink(f"/proc/{pid}/exe")) not in ("sleep", "coreutils"):
            clock.left_ms()
            os.sched_yield()
        assert slice_ns(pid) == before
    assert slice_ns() == 100_000


def test_it_comes_and_goes_with_the_looks(short_slice, ffi, lib):
    _, before = short_slice
    with programs_as_workers(ffi, lib, WAITS["poll"]) as (engine, _, lanes):
        lib.rc_slice_short(short_slice[0].struct, False)
        with connect(lanes[1].getsockname()):
            engine.wait_until(lambda _: slice_ns() == 100_000)
            engine.wait_until(lambda _: slice_ns() == before)
