"""Owns: lanes that come and go: the kernel's order, its queues, closed lanes, heirs."""

import contextlib
import errno
import itertools
import os
import random
import socket

import pytest

from ..harness import accept_all, arrivals, connect, spread, stream


class Group:
    """Workers 1..n with one lane each, and three connections queued in each lane."""

    def __init__(self, engine, count):
        self.engine, self.lanes, self.queued = engine, {}, {}
        address = ("127.0.0.1", 0)
        for number in range(1, count + 1):
            self.lanes[number] = engine.lane(number, address)
            address = self.address = self.lanes[number].getsockname()
        self.clients = []
        for number in self.lanes:
            engine.steer(number)
            clients = [connect(address) for _ in range(3)]
            self.queued[number] = {client.getsockname()[1] for client in clients}
            self.clients += clients

    def live(self, numbers):
        self.engine.steer(*numbers)

    def take_queue(self, number):
        """What waited in the lane from the beginning is all there."""
        came = arrivals({number: self.lanes[number]}, self.queued.pop(number, set()))
        return set(came)

    def check(self, allowed, count=60):
        """New connections come in lanes of `allowed`, and only there."""
        lanes = {number: self.lanes[number] for number in allowed}
        for number in allowed & self.queued.keys():
            self.take_queue(number)
        counts = spread(lanes, self.address, count)
        assert sum(counts.values()) == count

    def close(self):
        for sock in (*self.clients, *self.lanes.values()):
            sock.close()


@pytest.fixture
def new_group(new_engine):
    with contextlib.ExitStack() as stack:

        def make(count):
            group = Group(new_engine(), count)
            stack.callback(group.close)
            return group

        yield make


def orders():
    """Every order of removal of 2 to 4 lanes with every live set; of 5 lanes every
    order with a live set that differs from one to the next."""
    for count in (2, 3, 4):
        numbers = range(1, count + 1)
        sets = [set(s) for n in numbers for s in itertools.combinations(numbers, n)]
        yield count, list(itertools.product(itertools.permutations(numbers), sets))
    numbers = range(1, 6)
    sets = [set(s) for n in numbers for s in itertools.combinations(numbers, n)]
    chosen = random.Random(5)
    yield 5, [(order, chosen.choice(sets)) for order in itertools.permutations(numbers)]


@pytest.mark.parametrize("count, cases", list(orders()), ids=["2", "3", "4", "5"])
def test_lanes_may_go_in_any_order(new_engine, count, cases):
    """Failure mode 15: the kernel moves the last lane into the hole; so does our list."""
    for order, live in cases:
        with new_engine() as engine:
            group = Group(engine, count)
            group.live(live)
            for at, victim in enumerate(order):
                group.take_queue(victim)
                accept_all(group.lanes[victim])
                lane = group.lanes.pop(victim)
                if victim % 2:  # the others are still open somewhere when they go
                    lane.close()
                engine.bury(victim)
                rest = set(order[at + 1 :])
                if rest & live:
                    group.check(rest & live)
                lane.close()
            assert not group.queued and engine.lanes() == []
            group.close()


def test_a_dead_worker_s_queue_waits_for_its_heir(engine, ffi):
    group = Group(engine, 2)
    group.live({1, 2})
    group.lanes.pop(1).close()
    engine.lib.rc_find(engine.struct, 1).dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    group.check({2})  # while another is live, the dead one gets nothing

    heir, sock = engine.worker(3, heir_of=1), stream(socket.AF_INET, socket.SO_REUSEADDR)
    assert engine.bind(heir, sock, group.address) == group.address
    assert engine.listen(heir, sock)
    group.lanes[1] = sock
    assert group.take_queue(1)
    engine.steer(2, 3)
    group.lanes = {3: sock, 2: group.lanes[2]}
    group.check({2, 3})
    assert len(engine.lanes()) == 2
    engine.bury(1)  # the lane is the heir's now
    group.check({2, 3})
    group.close()


def test_when_all_live_are_dead_their_lanes_go_on_queueing(new_group):
    group = new_group(3)
    group.live({2, 3})
    for number in (2, 3):
        group.engine.lib.rc_find(group.engine.struct, number).dead = True
        group.engine.lib.rc_lanes_resteer(group.engine.struct)
    group.check({2, 3})


@pytest.mark.parametrize("count, leaver", [(n, at) for n in (1, 2, 3, 4) for at in range(1, n + 1)])
def test_a_worker_may_shut_its_own_listener_down(new_group, count, leaver):
    """Failure mode 34: its lane is out of the group before anybody is asked."""
    group = new_group(count)
    engine, live = group.engine, set(group.lanes) - {leaver}
    group.live(group.lanes)
    lane = group.lanes.pop(leaver)
    lane.shutdown(socket.SHUT_RDWR)
    engine.wait_until(lambda _: len(engine.lanes()) < count)
    assert {facts[0] for facts in engine.lanes()} == live
    if live:
        group.check(live)
    for number in sorted(live):  # and in any case the indices are right afterwards
        group.live({number})
        group.check({number}, 10)
    lane.close()


def test_a_lane_that_joins_after_a_removal_has_the_right_index(new_group):
    group = new_group(3)
    engine = group.engine
    group.live({2, 3})
    group.take_queue(1)
    group.lanes.pop(1).close()
    engine.bury(1)
    group.lanes[4] = engine.lane(4, group.address)
    for live in ({4}, {2}, {3}, {2, 4}):
        group.live(live)
        group.check(live)


# ---- nobody live -----------------------------------------------------------------------


def test_a_group_that_loses_its_live_ones_goes_on_with_the_next(new_group):
    group = new_group(2)
    group.live(())
    with pytest.raises(TimeoutError):
        connect(group.address, ms=200)
    assert [facts[1] for facts in group.engine.lanes()] == [False, False]
    group.live({2})
    group.check({2})
    group.take_queue(1)  # what was queued before is not lost


def test_closed_lanes_take_no_syn_and_keep_their_queue(new_group):
    group = new_group(2)
    engine = group.engine
    group.live({1, 2})
    assert engine.lib.rc_close_lanes(engine.pointer, 0) == 0
    with pytest.raises(TimeoutError):
        connect(group.address, ms=200)
    group.live({1, 2})
    with pytest.raises(TimeoutError):
        connect(group.address, ms=200)
    assert engine.lib.rc_queued(engine.pointer, 1) == engine.lib.rc_queued(engine.pointer, 2) == 3
    group.take_queue(1)
    group.take_queue(2)


def test_with_nobody_live_nothing_that_came_in_is_lost(new_group):
    group = new_group(2)
    group.live(())
    late = stream()
    assert late.connect_ex(group.address) == errno.EINPROGRESS
    group.clients.append(late)
    group.live({1, 2})
    port = late.getsockname()[1]
    came = arrivals(group.lanes, {port, *group.queued.pop(1), *group.queued.pop(2)})
    assert came[port] in (1, 2)


def test_one_closed_lane_leaves_all_to_the_other(new_group):
    group = new_group(2)
    group.live({1, 2})
    assert group.engine.lib.rc_close_lanes(group.engine.pointer, 1) == 0
    group.clients += [connect(group.address, ms=500) for _ in range(10)]
    assert group.engine.lib.rc_queued(group.engine.pointer, 1) == 3


def test_only_the_dead_are_forgotten(engine):
    lane = engine.lane(1)
    worker = engine.lib.rc_find(engine.struct, 1)
    worker.pid = os.getpid()
    assert engine.lib.rc_worker_release(engine.pointer, 1) == -errno.EBUSY
    worker.pid = 0
    assert engine.lib.rc_worker_release(engine.pointer, 2) == -errno.ESRCH
    engine.bury(1)
    assert engine.lanes() == []
    assert engine.lib.rc_worker_release(engine.pointer, 1) == -errno.ESRCH
    lane.close()


def test_a_worker_that_never_was_is_forgotten(engine, ffi):
    """Its command was gone before the fork: the channel must not stay."""
    held = set(os.listdir("/proc/self/fd"))
    channel = ffi.new("int *")
    assert engine.lib.rc_worker_new(engine.pointer, 7, 0, channel) == 0
    assert engine.lib.rc_worker_release(engine.pointer, 7) == 0
    assert set(os.listdir("/proc/self/fd")) == held
