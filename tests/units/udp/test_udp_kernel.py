"""Owns: flows of UDP that eBPF keeps where they are."""

import errno
import os
import socket

import pytest
from ports import free_port

from ..harness import Clock, needs_ipv6
from ..udpcase import ask, group_of

LONG_MS = 600_000


def bpf_number():
    return {"x86_64": 321, "aarch64": 280}[os.uname().machine]


@pytest.fixture
def staying(engine, lib):
    """An engine that lets flows stay; skips where it is not allowed to."""

    def make(ms):
        assert lib.rc_flows_stay(engine.pointer, ms) == 0
        return engine

    return make


def by_kernel(engine):
    """Whether the newest group is steered by eBPF; where it may be, it must."""
    if engine.struct.groups.flows_stay_ms == 0:
        pytest.skip("no eBPF here")
    return True


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_old_flows_stay_with_who_retires_and_new_ones_do_not(staying, datagrams, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    engine, address = staying(LONG_MS), (host, free_port(family, host))
    old = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2, 3)
    assert by_kernel(engine)
    clients = [datagrams(family) for _ in range(60)]
    first = ask(clients, old, address)
    assert set(first) == {1, 2, 3}
    new = group_of(engine, datagrams, address, 3, first=4)
    everybody = {**old, **new}
    assert ask(clients, everybody, address) == first
    engine.steer(4, 5, 6)
    assert ask(clients, everybody, address) == first
    fresh = [datagrams(family) for _ in range(60)]
    assert set(ask(fresh, everybody, address)) == {4, 5, 6}
    assert ask(clients, everybody, address) == first

    engine.lib.rc_find(engine.struct, 2).dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    second = ask(clients, everybody, address)
    assert all(now == was for was, now in zip(first, second, strict=True) if was != 2)
    assert {now for was, now in zip(first, second, strict=True) if was == 2} <= {4, 5, 6}
    for number in (1, 2, 3):
        old[number].close()
        engine.bury(number)
    third = ask(clients, new, address)
    assert set(third) == {4, 5, 6}
    assert ask(clients, new, address) == third


def test_old_flows_stay_no_longer_than_that(staying, datagrams, address):
    engine = staying(1)
    old = group_of(engine, datagrams, address, 2)
    engine.steer(1, 2)
    assert by_kernel(engine)
    clients, clock = [datagrams() for _ in range(20)], Clock()
    ask(clients, old, address)
    new = group_of(engine, datagrams, address, 2, first=3)
    engine.steer(3, 4)
    while not set(ask(clients, {**old, **new}, address)) <= {3, 4}:
        clock.left_ms()


def test_flows_stay_where_they_are_when_workers_are_added(staying, datagrams, address):
    engine = staying(LONG_MS)
    lanes = group_of(engine, datagrams, address, 2)
    engine.steer(1, 2)
    assert by_kernel(engine)
    clients = [datagrams() for _ in range(40)]
    first = ask(clients, lanes, address)
    lanes |= group_of(engine, datagrams, address, 3, first=3)
    engine.steer(1, 2, 3, 4, 5)
    assert ask(clients, lanes, address) == first
    assert {3, 4, 5} <= set(ask([datagrams() for _ in range(80)], lanes, address))


def test_a_worker_that_was_never_live_keeps_nothing(staying, datagrams, address):
    engine = staying(LONG_MS)
    lanes = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2)
    assert by_kernel(engine)
    assert set(ask([datagrams() for _ in range(60)], lanes, address)) == {1, 2}


def test_without_the_privilege_flows_move_at_once(staying, datagrams, address, fault, fds):
    engine = staying(LONG_MS)
    fault.arm(1, errno.EPERM, "syscall", bpf_number(), sticky=True)
    old = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2, 3)
    fault.disarm()
    clients = [datagrams() for _ in range(60)]
    ask(clients, old, address)
    new = group_of(engine, datagrams, address, 3, first=4)
    engine.steer(4, 5, 6)
    assert set(ask(clients, {**old, **new}, address)) == {4, 5, 6}
    assert not any("bpf" in str(one) for one in fds().values())


@pytest.mark.parametrize("n", range(1, 7))
def test_where_one_step_fails_the_classic_program_steers(staying, datagrams, address, fault, n):
    engine = staying(LONG_MS)
    fault.arm(n, errno.ENOMEM, "syscall", bpf_number())
    lanes = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2, 3)
    fault.disarm()
    assert set(ask([datagrams() for _ in range(60)], lanes, address)) == {1, 2, 3}


def test_an_engine_leaves_no_program_behind(new_engine, lib, datagrams, address, fds):
    before = fds()
    engine = new_engine()
    assert lib.rc_flows_stay(engine.pointer, LONG_MS) == 0
    lanes = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2, 3)
    for number, sock in lanes.items():
        sock.close()
        engine.bury(number)
    engine.free()
    assert fds() == before
