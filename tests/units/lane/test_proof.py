"""Owns: a connection of the master's own in each lane, until somebody has taken it."""

import errno
import socket

import pytest

from ..harness import check, connect, queue_of, spread, stream


@pytest.fixture
def proving(engine):
    check(engine.lib.rc_prove(engine.pointer), "rc_prove")
    return engine


def accepting(engine, worker):
    """The value of its event, which comes now or soon."""
    kind = engine.lib.RC_EVENT_ACCEPTING
    events = engine.wait_until(lambda seen: any(one[:2] == (kind, worker) for one in seen))
    return next(one[2] for one in events if one[:2] == (kind, worker))


def take(lane):
    """It was there when listen had returned, and says nothing."""
    connection, _ = lane.accept()
    connection.setblocking(True)
    assert connection.recv(1) == b""
    connection.close()


def test_a_lane_is_proved_when_its_connection_was_taken(proving):
    lane = proving.lane(1)
    assert queue_of(lane) == 1
    kinds = [kind for _ in range(3) for kind, *_ in proving.wait(2)]
    assert proving.lib.RC_EVENT_ACCEPTING not in kinds
    take(lane)
    assert accepting(proving, 1) == 0
    assert queue_of(lane) == 0


def test_it_comes_to_this_lane_and_clients_do_not(proving):
    first = proving.lane(1)
    address = first.getsockname()
    take(first)
    accepting(proving, 1)
    proving.steer(1)
    second = proving.lane(2, address)
    assert (queue_of(first), queue_of(second)) == (0, 1)
    clients = [connect(address) for _ in range(20)]
    assert (queue_of(first), queue_of(second)) == (20, 1)
    for client in clients:
        client.close()
    take(second)
    assert accepting(proving, 2) == 0
    proving.steer(2)
    assert spread({2: second}, address, 20) == {2: 20}


def test_ours_is_owed_to_nobody(proving):
    proving.lane(1)
    assert proving.lib.rc_queued(proving.pointer, 1) == 0


def test_each_lane_is_to_be_proved(proving):
    worker_lane = proving.lane(1)
    worker = proving.lib.rc_find(proving.struct, 1)
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    proving.bind(worker, other)
    proving.listen(worker, other)
    take(worker_lane)
    kinds = [kind for _ in range(5) for kind, *_ in proving.wait(5)]
    assert proving.lib.RC_EVENT_ACCEPTING not in kinds
    take(other)
    assert accepting(proving, 1) == 0
    other.close()


def test_a_server_that_defers_gets_it_and_goes_on_deferring(proving):
    worker = proving.worker(1)
    lane = socket.socket()
    lane.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    defers = lane.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    proving.bind(worker, lane)
    proving.listen(worker, lane)
    assert queue_of(lane) == 1
    assert lane.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == defers
    take(lane)
    accepting(proving, 1)
    lane.close()


@pytest.mark.parametrize("n", range(1, 40))
def test_whatever_fails_at_listen_the_worker_is_told_of(proving, fault, n):
    """It listens, or it does not; and then it is proved, if only by the lack of a proof."""
    worker, lane = proving.worker(1), stream(socket.AF_INET, socket.SO_REUSEADDR)
    proving.bind(worker, lane)
    fault.arm(n, errno.ENOBUFS)
    try:
        if not proving.listen(worker, lane):
            return
    except OSError:
        return
    finally:
        fault.disarm()
    if queue_of(lane):
        take(lane)
    for _ in range(40):
        if any(kind == proving.lib.RC_EVENT_ACCEPTING for kind, *_ in proving.wait(200)):
            return
        if queue_of(lane):
            take(lane)
    raise AssertionError("it waits for ever")
