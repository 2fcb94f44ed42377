"""Owns: what a bind and a listen become. The test process stands in for the workers."""

import errno
import os
import socket
import sys

import pytest

from ..harness import connect, has, needs_ipv6, spread, stream

REUSEADDR, REUSEPORT = socket.SO_REUSEADDR, socket.SO_REUSEPORT
LOOPBACK = ("127.0.0.1", 0)


def option(sock, name):
    return sock.getsockopt(socket.SOL_SOCKET, name)


def refused(function, *arguments):
    """The call must fail with EADDRINUSE."""
    with pytest.raises(OSError) as caught:
        function(*arguments)
    assert caught.value.errno == errno.EADDRINUSE
    return True


@pytest.fixture
def sockets():
    """Makes TCP sockets and closes them at the end."""
    made = []

    def make(*options, family=socket.AF_INET, protocol=0):
        made.append(stream(family, *options, protocol=protocol))
        return made[-1]

    yield make
    for sock in made:
        sock.close()


# ---- exclusive to others, shared among siblings ----------------------------------------


@pytest.mark.parametrize("ours", [(), (REUSEADDR,), (REUSEPORT,), (REUSEADDR, REUSEPORT)])
@pytest.mark.parametrize("theirs", [(), (REUSEADDR,), (REUSEPORT,), (REUSEADDR, REUSEPORT)])
def test_a_foreign_listener_is_address_in_use(engine, sockets, ours, theirs):
    foreign = sockets(*theirs)
    foreign.bind(LOOPBACK)
    foreign.listen()
    sock = sockets(*ours)
    assert refused(engine.bind, engine.worker(1), sock, foreign.getsockname())
    assert option(sock, REUSEADDR) == (REUSEADDR in ours)
    sock.bind(LOOPBACK)  # another try
    assert engine.lanes() == []


@pytest.mark.parametrize("theirs", [(), (REUSEADDR,), (REUSEPORT,), (REUSEADDR, REUSEPORT)])
def test_nobody_foreign_gets_a_connection_of_a_group(engine, sockets, theirs):
    lane, foreign = engine.lane(1), sockets(*theirs)
    engine.steer(1)

    def take():
        foreign.bind(lane.getsockname())
        foreign.listen()

    if REUSEPORT in theirs:  # the kernel lets one of the same user in
        take()
        assert spread({1: lane, 2: foreign}, lane.getsockname(), 30) == {1: 30, 2: 0}
    else:
        assert refused(take)
    lane.close()


@pytest.mark.parametrize("options", [(REUSEADDR,), (REUSEADDR, REUSEPORT)])
def test_a_second_engine_is_address_in_use(new_engine, sockets, options):
    first, second = new_engine(), new_engine()
    one, two = sockets(*options), sockets(*options)
    worker = first.worker(1)
    address = first.bind(worker, one)
    assert first.listen(worker, one)
    assert refused(second.bind, second.worker(1), two, address)


@pytest.mark.parametrize("options", [(REUSEADDR,), (REUSEPORT,), (REUSEADDR, REUSEPORT)])
@pytest.mark.parametrize("winner", [0, 1])
def test_of_two_engines_that_both_bind_before_either_listens_one_wins(
    new_engine, sockets, options, winner
):
    engines = [new_engine(), new_engine()]
    workers = [engine.worker(1) for engine in engines]
    socks = [sockets(*options), sockets(*options)]
    address = engines[0].bind(workers[0], socks[0])
    try:
        engines[1].bind(workers[1], socks[1], address)
    except OSError as error:
        assert error.errno == errno.EADDRINUSE
        assert engines[0].listen(workers[0], socks[0])
        return
    loser = 1 - winner
    assert engines[winner].listen(workers[winner], socks[winner])
    assert refused(engines[loser].listen, workers[loser], socks[loser])
    engines[winner].steer(1)
    assert spread({0: socks[winner]}, address, 20) == {0: 20}


@pytest.mark.parametrize("options", [(), (REUSEADDR,), (REUSEPORT,), (REUSEADDR, REUSEPORT)])
@pytest.mark.parametrize("bind_first", [False, True])
def test_siblings_join_and_each_gets_its_connections(engine, sockets, options, bind_first):
    holder = sockets(REUSEADDR)  # gives the number of a port, then lets it go
    holder.bind(LOOPBACK)
    address = holder.getsockname()
    holder.close()
    workers = [engine.worker(number) for number in (1, 2, 3)]
    socks = {worker.id: sockets(*options) for worker in workers}
    if bind_first:
        for worker in workers:
            assert engine.bind(worker, socks[worker.id], address) == address
        for worker in workers:
            assert engine.listen(worker, socks[worker.id])
    else:
        for worker in workers:
            assert engine.bind(worker, socks[worker.id], address) == address
            assert engine.listen(worker, socks[worker.id])
    for sock in socks.values():
        assert option(sock, REUSEADDR) == bool(options)  # as good as SO_REUSEPORT at a restart
        assert sock.getblocking() is False and os.get_inheritable(sock.fileno()) is False
    for live in ((1,), (3, 2), (1, 2, 3)):
        engine.steer(*live)
        counts = spread(socks, address, 60)
        assert {number for number, count in counts.items() if count} == set(live)


def test_a_bind_to_a_specific_and_to_any_address_are_two_groups_that_conflict(engine, sockets):
    lane, worker, wild = engine.lane(1), engine.worker(2), sockets(REUSEADDR)
    assert refused(engine.bind, worker, wild, ("0.0.0.0", lane.getsockname()[1]))
    lane.close()


# ---- port 0 ------------------------------------------------------------------------------


def test_port_0_without_reuse_is_the_worker_s_own(engine, sockets):
    one, two = sockets(), sockets()
    first, second = engine.worker(1), engine.worker(2)
    assert engine.bind(first, one) != engine.bind(second, two)
    assert not engine.listen(first, one)
    assert engine.lanes() == []


@pytest.mark.parametrize("options", [(REUSEADDR,), (REUSEPORT,)])
def test_the_nth_port_0_of_each_worker_is_one_group(engine, sockets, options):
    ports = []
    for number in (1, 2, 3):
        worker = engine.worker(number)
        socks = [sockets(*options) for _ in range(3)]
        if number == 2:  # all bound, then listened in another order
            for sock in socks:
                engine.bind(worker, sock)
            assert all(engine.listen(worker, sock) for sock in reversed(socks))
        else:
            for sock in socks:
                engine.bind(worker, sock)
                assert engine.listen(worker, sock)
        ports.append([sock.getsockname()[1] for sock in socks])
    assert ports[0] == ports[1] == ports[2]
    assert len(set(ports[0])) == 3


def test_port_0_of_another_address_counts_by_itself(engine, sockets):
    one, two = engine.worker(1), engine.worker(2)
    socks = [sockets(REUSEADDR) for _ in range(3)]
    engine.bind(one, socks[0], ("127.0.0.2", 0))
    assert engine.listen(one, socks[0])
    address = engine.bind(one, socks[1])
    assert engine.listen(one, socks[1])
    engine.bind(two, socks[2])
    assert engine.listen(two, socks[2]) and socks[2].getsockname() == address


def test_a_bind_that_never_listens_leaves_no_trace(engine, sockets, fds):
    worker, before = engine.worker(1), fds()
    for _ in range(3):  # grpc looks for a free port like this
        probe = sockets(REUSEADDR)
        engine.bind(worker, probe)
        probe.close()
    assert fds() == before
    lane, other = sockets(REUSEADDR), sockets(REUSEADDR)
    address = engine.bind(worker, lane)
    assert engine.listen(worker, lane)
    second = engine.worker(2)
    engine.bind(second, other)
    assert engine.listen(second, other) and other.getsockname() == address


def test_a_port_that_was_bound_and_let_go_is_free_for_others(engine, sockets):
    probe, foreign, late = sockets(REUSEADDR), sockets(), sockets(REUSEADDR)
    address = engine.bind(engine.worker(1), probe)
    probe.close()
    foreign.bind(address)
    foreign.listen()
    assert refused(engine.bind, engine.worker(2), late, address)


def test_binds_without_end_are_forgotten_the_oldest_first(engine, sockets, lib):
    worker, socks = engine.worker(1), [sockets(REUSEADDR) for _ in range(70)]
    for number, sock in enumerate(socks):
        engine.bind(worker, sock, (f"127.0.1.{number + 1}", 0))
    assert worker.pendings == lib.RC_PENDING_MAX
    assert engine.listen(worker, socks[-1])
    assert len(engine.lanes()) == 1


# ---- listen -------------------------------------------------------------------------------


def somaxconn():
    with open("/proc/sys/net/core/somaxconn") as file:
        return int(file.read())


def test_the_backlog_is_never_lowered(engine, sockets):
    """Failure mode 9: whoever listens again on a lane, with whatever number."""
    most = somaxconn()
    least = min(most, 1024)
    worker, sock = engine.worker(1), sockets(REUSEADDR)
    engine.bind(worker, sock)
    for asked, limit in (
        (5, least),
        (1, least),
        (least + 1, min(least + 1, most)),
        (100, min(least + 1, most)),
        (-1, most),
        (0, most),
    ):
        assert engine.listen(worker, sock, asked)
        ((_, _, _, backlog, _),) = engine.lanes()
        assert backlog == limit


def test_listening_twice_or_from_a_child_is_one_lane(engine, sockets):
    lane, dup = engine.lane(1), None
    worker = engine.lib.rc_find(engine.struct, 1)
    assert engine.listen(worker, lane)
    dup = lane.dup()
    assert engine.listen(worker, dup)
    assert len(engine.lanes()) == 1
    dup.close()
    lane.close()


def test_listening_is_told_as_a_lane_or_as_the_worker_s_own(engine, sockets):
    output = engine.ffi.new("struct rc_output *")
    output.events, output.room = engine.events, engine.lib.RC_EVENTS_MIN
    engine.struct.output = output
    lane, private = engine.lane(1), sockets()
    worker = engine.worker(2)
    address = engine.bind(worker, private)
    engine.listen(worker, private)
    told = [engine._event(event) for event in engine.events[0 : output.count]]
    engine.struct.output = engine.ffi.NULL
    kind = engine.lib.RC_EVENT_LISTENING
    assert told == [
        (kind, 1, 1, b"127.0.0.1:%d" % lane.getsockname()[1]),
        (kind, 2, 0, b"127.0.0.1:%d" % address[1]),
    ]
    lane.close()


def test_a_second_bind_is_refused_by_the_kernel_and_does_no_harm(engine, sockets):
    worker, sock = engine.worker(1), sockets(REUSEADDR)
    address = engine.bind(worker, sock)
    for again in (address, ("127.0.0.2", address[1])):
        with pytest.raises(OSError) as caught:
            engine.bind(worker, sock, again)
        assert caught.value.errno == errno.EINVAL
    assert engine.listen(worker, sock) and len(engine.lanes()) == 1


@pytest.mark.parametrize("live_before", [False, True])
def test_a_refused_listen_may_be_tried_again(new_engine, sockets, live_before):
    """As a program that waits for its predecessor to end does."""
    first, second = new_engine(), new_engine()
    one, two = sockets(REUSEADDR), sockets(REUSEADDR)
    worker, late = first.worker(1), second.worker(1)
    address = first.bind(worker, one)
    second.bind(late, two, address)
    assert first.listen(worker, one)
    assert refused(second.listen, late, two)
    one.close()
    first.free()
    if live_before:
        second.steer(1)
    assert second.listen(late, two)
    second.steer(1)
    assert spread({1: two}, address, 10) == {1: 10}


# ---- families -------------------------------------------------------------------------------


needs_mptcp = pytest.mark.skipif(not has(socket.AF_INET, 262), reason="no MPTCP here")


@needs_ipv6
@pytest.mark.parametrize(
    "host, v6only, client",
    [
        ("::1", 0, "::1"),
        ("::1", 1, "::1"),
        ("::", 1, "::1"),
        ("::", 0, "::1"),
        ("::", 0, "127.0.0.1"),
        ("::ffff:127.0.0.1", 0, "127.0.0.1"),
    ],
)
def test_ipv6_siblings_share(engine, sockets, host, v6only, client):
    socks, address = {}, (host, 0)
    for number in (1, 2, 3):
        sock = socks[number] = sockets(REUSEADDR, family=socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        worker = engine.worker(number)
        address = engine.bind(worker, sock, address)
        assert engine.listen(worker, sock)
    assert {lane[4] for lane in engine.lanes()} == {f"[{host}]:{address[1]}"}
    for live in ((2,), (1, 3)):
        engine.steer(*live)
        counts = spread(socks, (client, address[1]), 40)
        assert {number for number, count in counts.items() if count} == set(live)


@needs_ipv6
def test_ipv4_and_ipv6_only_on_one_port_are_two_groups(engine, sockets):
    four, six = engine.lane(1), sockets(REUSEADDR, family=socket.AF_INET6)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    port, worker = four.getsockname()[1], engine.worker(2)
    assert engine.bind(worker, six, ("::", port)) == ("::", port)
    assert engine.listen(worker, six)
    engine.steer(1, 2)
    assert spread({1: four, 2: six}, ("127.0.0.1", port), 20) == {1: 20, 2: 0}
    assert spread({1: four, 2: six}, ("::1", port), 20) == {1: 0, 2: 20}
    four.close()


@needs_mptcp
def test_mptcp_is_replaced_by_plain_tcp(engine, sockets, fds):
    first, second = engine.worker(1), engine.worker(2)
    one, two = (sockets(REUSEADDR, protocol=262) for _ in range(2))
    before = fds().keys()
    address = engine.bind(first, one)
    assert engine.bind(second, two, address) == address
    assert fds().keys() == before
    assert option(one, socket.SO_PROTOCOL) == socket.IPPROTO_TCP
    assert option(one, REUSEADDR) == 1 and one.getblocking() is False
    assert os.get_blocking(one.fileno()) is False
    assert engine.listen(first, one) and engine.listen(second, two)
    engine.steer(2)
    assert spread({1: one, 2: two}, address, 20) == {1: 0, 2: 20}


def test_what_is_not_tcp_passes(engine, tmp_path):
    worker = engine.worker(1)
    with socket.socket(socket.AF_UNIX) as sock:
        answer = engine._ask(engine.lib.rc_lanes_bind, worker, sock, b"\1\0" + b"x" * 30)
        assert getattr(answer, "pass")
        sock.bind(f"\0recluster-{os.getpid()}-{id(sock)}")
        assert not engine.listen(worker, sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        engine.bind(worker, sock)
        answer = engine._ask(engine.lib.rc_lanes_bind, worker, sock, b"\2\0" + b"\0" * 14)
        assert getattr(answer, "pass")
    assert worker.pendings == 0 and engine.lanes() == []


def test_an_address_that_makes_no_sense_passes(engine, sockets):
    worker, sock = engine.worker(1), sockets(REUSEADDR)
    family = socket.AF_INET6.to_bytes(2, sys.byteorder)
    for address in (b"", b"\2", b"\2\0\0\0", b"\2\0" + b"\0" * 13, family + b"\0" * 26):
        assert getattr(engine._ask(engine.lib.rc_lanes_bind, worker, sock, address), "pass")
    assert sock.getsockname() == ("0.0.0.0", 0)


def test_an_engine_that_is_freed_closes_its_lanes(new_engine, fds):
    before = fds()
    engine = new_engine()
    lanes = [engine.lane(1)]
    lanes.append(engine.lane(2, lanes[0].getsockname()))
    engine.steer(1, 2)
    client = connect(lanes[0].getsockname())
    engine.free()
    for sock in (*lanes, client):
        sock.close()
    assert fds() == before
