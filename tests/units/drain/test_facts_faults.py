"""Owns: what is known of a retired worker's connections when a look fails, and the costs."""

import collections
import contextlib
import errno
import os
import select
import socket
import time

import pytest

from ..factscase import (
    FOUR,
    SIX,
    another_lane,
    defer,
    lane_at,
)
from ..harness import check, connect, has, queue_of


@pytest.mark.parametrize("call", ["socket", "connect", "sendmsg", "recvmsg"])
@pytest.mark.parametrize("error", [errno.EPERM, errno.EAFNOSUPPORT, errno.ENOBUFS])
def test_netlink_refused(engine, lib, server, dial, fault, fds, call, error):
    dial(server)
    server.do("accept()")
    before = fds()
    fault.arm(1, error, call, sticky=True)
    assert lib.rc_drain_begin(engine.pointer, [1], 1) == -error
    assert server.try_look() == -error
    assert fault.disarm() == 2
    assert fds() == before
    server.begin()
    assert server.count() == (1, 1)


def test_whatever_fails_once_the_next_look_knows(engine, server, dial, fault, fds):
    dial(server)
    server.do("accept()")
    defer(server)
    dial(server)
    for n in range(1, 100):
        fault.arm(n, errno.ENOMEM)
        begun = engine.lib.rc_drain_begin(engine.pointer, [1], 1)
        facts = server.try_look()
        fired = fault.disarm()
        results = [begun, facts]
        # getsockopt says of a queue that it is empty; without poll each queue is asked.
        if fired and fault.last not in ("getsockopt", "poll"):
            assert results.count(-errno.ENOMEM) == 1, fault.last
        assert facts == -errno.ENOMEM or facts[:2] == (1, 1), fault.last
        assert server.until(1, 1).half_open == 1
        if not fired:
            break
    else:
        raise AssertionError("no end")
    assert n > 10


def test_no_descriptor_is_left(new_engine, lib, fds):
    before = fds()
    engine = new_engine()
    with lane_at(engine, 1, FOUR, "127.0.0.1"):
        lib.rc_find(engine.struct, 1).pid = os.getpgrp()
        assert lib.rc_drain_begin(engine.pointer, [1], 1) == 0
        engine.free()
    assert fds() == before


def test_descriptor_is_not_inherited(server, fds):
    before = fds()
    server.begin()
    (netlink,) = fds().keys() - before.keys()
    assert not os.get_inheritable(netlink)


def test_lanes_of_many_ports_are_asked_for_at_once(new_engine, lib, fault):
    """Those of the worker's connections that came to its ports, and no other's; the kernel
    is asked once for each family, however many ports there are."""
    engine = new_engine()
    with contextlib.ExitStack() as stack:
        hosts = [(FOUR, "127.0.0.1")] * 40 + [(SIX, "::1")] * 40 * has(SIX, 0, ("::1", 0))
        worker = engine.worker(1)
        mine = [stack.enter_context(another_lane(engine, worker, *host)) for host in hosts]
        engine.steer(1)
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(40)]
        for lane in (*mine, *others):
            stack.enter_context(socket.create_connection(lane.getsockname()[:2]))
            stack.enter_context(lane.accept()[0])
        group = os.getpgrp()
        os.setpgid(0, 0)  # whoever else is in the group may be somebody's whom we may not look into
        stack.callback(os.setpgid, 0, group)
        lib.rc_find(engine.struct, 1).pid = os.getpid()
        asked = collections.Counter()
        with fault.before_each_call(lambda name: asked.update([name])):
            check(lib.rc_drain_begin(engine.pointer, [1], 1))
            facts = engine.ffi.new("struct rc_drain_facts *")
            check(lib.rc_drain_look(engine.pointer, 1, facts))
        assert facts.connections == len(mine)
        assert facts.half_open == facts.queued == 0
        assert asked[b"sendmsg"] <= 4 + len(mine), "two dumps of each family, then one by one"
        engine.free()


def test_what_waits_is_counted_among_many_lanes(engine, fault):
    """Also where poll is refused."""
    with contextlib.ExitStack() as stack:
        worker = engine.worker(1)
        lanes = [another_lane(engine, worker, FOUR, "127.0.0.1") for _ in range(70)]
        for lane in lanes:
            stack.enter_context(lane)
        engine.steer(1)
        for lane in (lanes[0], lanes[35], lanes[35], lanes[69]):
            stack.enter_context(connect(lane.getsockname()))
        for lane in (lanes[0], lanes[35], lanes[69]):
            assert select.select([lane], [], [], 5)[0]
        assert engine.lib.rc_queued(engine.pointer, 1) == 4
        fault.arm(1, errno.EINVAL, "poll", sticky=True)
        assert engine.lib.rc_queued(engine.pointer, 1) == 4
        assert fault.disarm() == 2
        lanes[35].accept()[0].close()
        assert engine.lib.rc_queued(engine.pointer, 1) == 3


def test_cost(server, dial, capsys):
    count = 500
    clients = []
    for _ in range(count):
        clients.append(dial(server))
        server.do("accept()")
    times = []
    for step in (server.begin, server.look, server.look, server.look):
        start = time.perf_counter()
        facts = step()
        times.append((time.perf_counter() - start) * 1e6)
    assert facts[:2] == (count, count) and queue_of(server.lane) == 0
    with capsys.disabled():
        print(
            f"\n{count} connections: begin {times[0]:.0f} us, first look {times[1]:.0f} us, "
            f"then {times[3]:.0f} us, {times[3] / count:.1f} each"
        )
