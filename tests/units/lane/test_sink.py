"""Owns: the sink, where connections go while nobody may be chosen: they wait.

A moment inside the engine is reached by a hook before each of its system calls
(faults.c): whatever a client begins there must end in the right lane.
"""

import contextlib
import errno
import os
import select
import socket

import pytest

from ..harness import (
    Clock,
    accept_all,
    arrivals,
    connect,
    needs_ipv6,
    queue_of,
    ready,
    spread,
    start_connect,
    stream,
)

RETRY_MS = 4000  # a dropped SYN comes again after 1 s, and after 2 s more
SIX, FOUR = socket.AF_INET6, socket.AF_INET
PLACES = [
    pytest.param(FOUR, "127.0.0.1", 0, "127.0.0.1"),
    pytest.param(FOUR, "0.0.0.0", 0, "127.0.0.1"),
    pytest.param(SIX, "::1", 0, "::1", marks=needs_ipv6),
    pytest.param(SIX, "::", 1, "::1", marks=needs_ipv6),
    pytest.param(SIX, "::", 0, "::1", marks=needs_ipv6),
    pytest.param(SIX, "::", 0, "127.0.0.1", marks=needs_ipv6),
    pytest.param(SIX, "::ffff:127.0.0.1", 0, "127.0.0.1", marks=needs_ipv6),
]


def lane_at(engine, number, family, host, v6only=0, port=0):
    worker, sock = engine.worker(number), stream(family, socket.SO_REUSEADDR)
    if family == SIX:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    engine.bind(worker, sock, (host, port))
    assert engine.listen(worker, sock)
    return sock


def shut(*sockets):
    for sock in sockets:
        sock.close()


@pytest.fixture
def clients():
    """Begins connections, and closes them at the end: [(client, errno), ...]."""
    begun = []
    yield begun
    shut(*(client for client, _ in begun))


def begin(clients, address):
    client, error = start_connect(address)
    if ready(client, 0, 0):  # refused at once
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    clients.append((client, error))


def connected(clients, ms=RETRY_MS):
    """Ports of all clients that were not refused; each of them must connect."""
    clock, ports = Clock(ms / 1000), set()
    for client, error in clients:
        if error != errno.ECONNREFUSED:
            assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
            assert ready(client, select.POLLOUT, clock.left_ms())
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            ports.add(client.getsockname()[1])
    return ports


def without_netlink(engine, fds):
    """An engine keeps the socket that it asks the kernel by, once it has asked."""
    return {fd: name for fd, name in fds.items() if fd != engine.struct.diag}


# ---- making and unmaking ---------------------------------------------------------------


@pytest.mark.parametrize("family, host, v6only, client", PLACES)
def test_the_sink_comes_with_the_first_lane_and_is_full(engine, family, host, v6only, client):
    lane = lane_at(engine, 1, family, host, v6only)
    port = lane.getsockname()[1]
    with engine.sink() as sink:
        assert queue_of(sink) == 1
        again = lane_at(engine, 2, family, host, v6only, port)
        with engine.sink() as same:
            assert same.getsockname() == sink.getsockname() and same.getsockname()[1] == port
            assert os.fstat(same.fileno()).st_ino == os.fstat(sink.fileno()).st_ino
        assert (engine.struct.groups.count, len(engine.lanes())) == (3, 2)  # not told as a lane
        engine.steer(1)
        spread({1: lane}, (client, port), 20)
        assert queue_of(sink) == 1
        connection, _ = sink.accept()
        assert connection.recv(1) == b""  # the master's own: nothing else was ever open so early
        with pytest.raises(BlockingIOError):
            sink.accept()
        connection.close()
    shut(lane, again)


@pytest.mark.parametrize("family, host, v6only, client", PLACES)
def test_with_nobody_live_a_connect_waits_until_somebody_is(
    engine, clients, family, host, v6only, client
):
    lane = lane_at(engine, 1, family, host, v6only)
    begin(clients, (client, lane.getsockname()[1]))
    waiting, error = clients[0]
    assert error == errno.EINPROGRESS
    assert not ready(waiting, select.POLLOUT, 200)
    assert engine.lanes()[0][1] is False
    engine.steer(1)
    ports = connected(clients)
    assert arrivals({1: lane}, ports)
    lane.close()


def test_the_sink_goes_with_the_last_lane(new_engine, fds):
    engine = new_engine()
    before = fds()
    lanes = [engine.lane(1)]
    address = lanes[0].getsockname()
    assert len(fds()) == len(before) + 5  # the lane, our dup of it, the sink, a channel's two ends
    lanes.append(engine.lane(2, address))
    engine.steer(1, 2)
    shut(*lanes)
    engine.bury(1)
    with engine.sink() as sink:
        assert queue_of(sink) == 1
    engine.bury(2)
    assert engine.struct.groups == engine.ffi.NULL and without_netlink(engine, fds()) == before
    with pytest.raises(ConnectionRefusedError):
        connect(address)
    with stream() as foreign:
        foreign.bind(address)  # without SO_REUSEADDR
        foreign.listen()
        connect(address).close()


@pytest.mark.parametrize("count", [1, 3])
def test_the_sink_goes_when_the_workers_shut_down_themselves(new_engine, fds, count):
    engine = new_engine()
    before, lanes, address = fds(), [], ("127.0.0.1", 0)
    for number in range(1, count + 1):
        lanes.append(engine.lane(number, address))
        address = lanes[0].getsockname()
    for lane in lanes:
        lane.shutdown(socket.SHUT_RDWR)
    engine.wait_until(lambda _: not engine.struct.groups)
    shut(*lanes)
    for number in range(1, count + 1):
        engine.bury(number)
    assert without_netlink(engine, fds()) == before


def test_an_orphan_without_live_ones_keeps_the_sink_away(engine, clients):
    """The dead worker's lane queues for its heir; that is better than to wait."""
    lane = engine.lane(1)
    engine.steer(1)
    engine.lib.rc_find(engine.struct, 1).dead = True
    assert engine.lib.rc_lanes_resteer(engine.struct) == 0
    begin(clients, lane.getsockname())
    assert arrivals({1: lane}, connected(clients, 500))
    lane.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives sockets away")
def test_the_sink_is_of_its_group_s_user(engine):
    """Else the kernel would not let it into the group (inet_rcv_saddr, sk_uid)."""
    worker, lane = engine.worker(1), stream(FOUR, socket.SO_REUSEADDR)
    os.fchown(lane.fileno(), 65534, -1)
    engine.bind(worker, lane)
    assert engine.listen(worker, lane)
    with engine.sink() as sink:
        assert os.fstat(sink.fileno()).st_uid == 65534 and queue_of(sink) == 1
    lane.close()


# ---- a sink that cannot be made -----------------------------------------------------------


@pytest.mark.parametrize(
    "name, n, error",
    [
        ("socket", 1, errno.EMFILE),
        ("socket", 2, errno.EMFILE),
        ("bind", 1, errno.EADDRNOTAVAIL),
        ("bind", 2, errno.EADDRINUSE),
        ("listen", 2, errno.EADDRINUSE),
        ("connect", 1, errno.EADDRNOTAVAIL),
        ("getsockname", 2, errno.ENOBUFS),
        ("calloc", 5, errno.ENOMEM),
        ("epoll_ctl", 2, errno.ENOSPC),
    ],
)
def test_a_group_without_sink_still_serves(new_engine, fault, fds, name, n, error):
    before, engine = fds(), new_engine()
    worker, lane = engine.worker(1), stream(FOUR, socket.SO_REUSEADDR)
    address = engine.bind(worker, lane)
    fault.arm(n, error, name)
    assert engine.listen(worker, lane)
    assert fault.disarm() == 1
    assert engine.sink() is None and engine.struct.groups.count == 1
    lanes = {1: lane}
    for number in (2, 3):
        lanes[number] = engine.lane(number, address)
    for live in ({1}, {3}, {1, 2}):
        engine.steer(*live)
        counts = spread(lanes, address, 40)
        assert {number for number, count in counts.items() if count} == live
    engine.steer(3)
    lanes.pop(1).close()
    engine.bury(1)  # the live one moves
    assert spread(lanes, address, 20) == {2: 0, 3: 20}
    engine.steer()  # nobody: what is taken waits
    assert spread(lanes, address, 20)
    shut(*lanes.values())
    engine.free()
    assert fds() == before


# ---- every moment -------------------------------------------------------------------------


def made_with_a_client_in_moment(n, engine, fault, live):
    """A first lane; before the n-th system call of its listen a client begins."""
    worker, lane = engine.worker(1), stream(FOUR, socket.SO_REUSEADDR)
    address, names, begun = engine.bind(worker, lane), [], []
    if live:
        engine.steer(1)

    def now(name):
        names.append(name.decode())
        if len(names) == n:
            begin(begun, address)

    with fault.before_each_call(now):
        assert engine.listen(worker, lane)
    return lane, names, begun


@pytest.mark.parametrize("live", [False, True])
def test_at_no_moment_of_its_making_does_a_client_get_into_the_sink(new_engine, fault, live):
    with contextlib.ExitStack() as stack:
        cases, wrong, n, most = [], [], 1, 2
        while n <= most:
            engine = new_engine()
            lane, names, begun = made_with_a_client_in_moment(n, engine, fault, live)
            stack.callback(shut, lane, *(client for client, _ in begun))
            most = max(most, len(names))
            cases.append((f"client before call {n} ({' '.join(names[:n])})", engine, lane, begun))
            n += 1
        assert most > 10
        for _, engine, _, _ in cases:
            engine.steer(1)
        for text, engine, lane, begun in cases:
            sink = engine.sink()
            if not sink:
                wrong.append(f"no sink: {text}")
                continue
            with sink:
                full = queue_of(sink) == 1
                inside = set(accept_all(sink))
            ports = connected(begun)
            if not full or inside & ports:
                wrong.append(f"in the sink: {text}")
            else:
                arrivals({1: lane}, ports)
        assert not wrong, "\n".join(wrong)


def test_a_client_of_the_first_moment_is_not_in_the_way_of_siblings(new_engine, fault):
    """While its connection lives, which has the socket options of that moment."""
    n, most = 1, 2
    while n <= most:
        engine = new_engine()
        lane, names, begun = made_with_a_client_in_moment(n, engine, fault, True)
        most, text = max(most, len(names)), f"before call {n} ({' '.join(names[:n])})"
        with contextlib.ExitStack() as stack:
            stack.callback(shut, lane, *(client for client, _ in begun))
            worker, sibling = engine.worker(2), stack.enter_context(stream())
            try:
                engine.bind(worker, sibling, lane.getsockname())
                assert engine.listen(worker, sibling), text
            except OSError as error:
                pytest.fail(f"{error}, with a client {text}")
        engine.free()
        n += 1


def removals():
    """(lanes, live ones, victim): each live set that the victim is not of."""
    for count in (2, 3, 4):
        for victim in range(1, count + 1):
            rest = [number for number in range(1, count + 1) if number != victim]
            for live in [[number] for number in rest] + [rest[:2]] * (count > 2):
                yield count, set(live), victim


def test_at_no_moment_of_a_removal_is_a_wrong_lane_chosen(new_engine, fault):
    """All cases first, then all that came: dropped SYNs come again meanwhile."""
    with contextlib.ExitStack() as stack:
        cases, attached = [], 0
        for count, live, victim in removals():
            engine, lanes, address = new_engine(), {}, ("127.0.0.1", 0)
            for number in range(1, count + 1):
                lanes[number] = engine.lane(number, address)
                address = lanes[1].getsockname()
            engine.steer(*live)
            gone, begun, names = lanes.pop(victim), [], []
            gone.close()

            def now(name, begun=begun, names=names, address=address):
                names.append(name)
                begin(begun, address)

            with fault.before_each_call(now):
                engine.bury(victim)
            assert b"shutdown" in names
            attached += names.count(b"setsockopt")
            stack.callback(shut, *lanes.values(), *(client for client, _ in begun))
            cases.append((f"{count} lanes, {live} live, {victim} goes", engine, lanes, live, begun))
        assert attached  # where a live one has moved
        for text, engine, lanes, live, begun in cases:
            assert all(error != errno.ECONNREFUSED for _, error in begun), text
            came = arrivals(lanes, connected(begun))
            assert set(came.values()) <= live, text
            with engine.sink() as sink:
                assert queue_of(sink) == 1, text
