"""Owns: a lane that its worker, alive, holds no more; and an address that nobody serves.

The workers are processes that lead their groups and hold lanes they have inherited;
each does the lines of Python that a test sends it, one by one.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from ..harness import arrivals, check, connect, queue_of, ready, spread, start_connect, stream

FOUR = socket.AF_INET

HOLDER = """
import os, socket, sys
lanes = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]

def hand_over(leave_group):
    # A child holds the lanes, and closes them when its pipe ends.
    global writer, closed, alive
    reader, writer = os.pipe()
    ends, alive = os.pipe()
    closed, says_closed = os.pipe()
    if os.fork() == 0:
        if leave_group:
            os.setsid()
        os.close(writer)
        os.close(alive)
        os.read(reader, 1)
        drop()
        os.write(says_closed, b"x")
        os.read(ends, 1)
        os._exit(0)
    drop()

def drop():
    while lanes:
        lanes.pop().close()

for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Holder:
    """The process of a worker; with its lanes, of which the test keeps nothing."""

    def __init__(self, engine, worker, lanes):
        numbers = [lane.fileno() for lane in lanes]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=numbers,
            start_new_session=True,
        )
        worker.pid = self.process.pid
        self.do("pass")
        for lane in lanes:
            lane.close()

    def do(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        assert ready(self.process.stdout) and self.process.stdout.readline() == b"done\n"

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def hold(engine):
    """Makes workers of one address whose processes hold their lanes."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", 0)

        def make(number, count=1):
            nonlocal address
            lane = engine.lane(number, address)
            address = make.address = lane.getsockname()
            worker = engine.lib.rc_find(engine.struct, number)
            lanes = [lane, *(listener(engine, worker, address) for _ in range(count - 1))]
            holder = Holder(engine, worker, lanes)
            stack.callback(holder.stop)
            return holder

        make.address = None
        make.of = lambda worker: Holder(engine, worker, [])
        yield make


def listener(engine, worker, address):
    sock = stream(FOUR, socket.SO_REUSEADDR)
    assert engine.bind(worker, sock, address) == address
    assert engine.listen(worker, sock)
    return sock


def lanes_of(engine, number):
    group = engine.struct.groups
    lanes = [group.lanes[at] for at in range(group.count)]
    return [lane for lane in lanes if lane.worker and lane.worker.id == number]


def is_held(engine, number=1):
    (lane,) = lanes_of(engine, number)
    return engine.lib.rc_lane_held(lane)


def pressures(engine):
    facts = engine.ffi.new("struct rc_lane_facts[]", 8)
    count = engine.lib.rc_lanes(engine.pointer, facts, 8)
    return {one.worker: one.pressure for one in facts[0:count]}


def deaf_events(engine, events):
    return [event[1:] for event in events if event[0] == engine.lib.RC_EVENT_DEAF]


def text(address):
    return f"{address[0]}:{address[1]}".encode()


@pytest.fixture
def clients():
    """Connects, and closes at the end."""
    with contextlib.ExitStack() as stack:

        def make(address, count):
            made = [stack.enter_context(connect(address)) for _ in range(count)]
            return {client.getsockname()[1] for client in made}

        yield make


# ---- who holds a lane ----------------------------------------------------------------------


def test_a_worker_holds_its_lane_until_it_closes_it(engine, hold):
    holder = hold(1)
    assert is_held(engine) == 1
    holder.do("extra = lanes[0].dup(); drop()")
    assert is_held(engine) == 1
    holder.do("extra.close()")
    assert is_held(engine) == 0


def test_who_has_it_is_remembered(engine, hold, fault):
    """Else each question about a duplicate would be a search."""
    hold(1).do("extra = lanes[0].dup(); drop()")
    assert is_held(engine) == 1
    fault.arm(1, errno.ENOMEM, "realloc", sticky=True)
    assert is_held(engine) == 1
    assert fault.disarm() == 0


@pytest.mark.parametrize("leave_group", [False, True])
def test_so_do_its_children(engine, hold, leave_group):
    holder = hold(1)
    holder.do(f"hand_over({leave_group})")
    assert is_held(engine) == 1
    holder.do("os.close(writer); os.read(closed, 1)")
    assert is_held(engine) == 0


def test_a_lane_in_its_place_is_held_without_a_search(engine, fault):
    """The place is where it listened: here a number of the test's own."""
    lane = engine.lane(1)
    engine.lib.rc_find(engine.struct, 1).pid = os.getpid()
    fault.arm(1, errno.ENOMEM, "realloc", sticky=True)
    assert is_held(engine) == 1
    assert fault.disarm() == 0
    number = lane.fileno()
    with stream() as other:  # another socket of that number is not it
        lane.close()
        os.dup2(other.fileno(), number)
        try:
            assert is_held(engine) == 0
        finally:
            os.close(number)


def test_what_cannot_be_known_changes_nothing(engine, hold, fault):
    lane = engine.lane(9)
    assert is_held(engine, 9) == -errno.ESRCH  # no process yet
    lane.close()
    holder = hold(1)
    holder.do("drop()")
    fault.arm(1, errno.ENOMEM, "realloc", sticky=True)
    assert engine.lib.rc_deaf(engine.pointer, 1) == 0
    assert fault.disarm() == 1
    assert not lanes_of(engine, 1)[0].deaf
    engine.lib.rc_find(engine.struct, 1).dead = True
    assert is_held(engine) == -errno.ESRCH  # an heir may have it, whoever holds it


# ---- finding out -----------------------------------------------------------------------------


def test_a_queue_that_nobody_takes_from_tells_of_a_deaf_lane(engine, hold, clients):
    """New connections avoid it; what waits in it is its heir's."""
    holders = [hold(1), hold(2)]
    engine.steer(1)
    waiting = clients(hold.address, 3)
    holders[0].do("drop()")
    engine.steer(1, 2)
    events = engine.wait_until(lambda events: deaf_events(engine, events))
    assert deaf_events(engine, events) == [(1, 0, text(hold.address))]
    ((_, first, queued, _, _), (_, second, _, _, _)) = engine.lanes()
    assert (first, queued, second) == (False, 3, True)

    third = listener(engine, engine.worker(3, heir_of=1), hold.address)
    assert arrivals({3: third}, waiting)
    assert [facts[0] for facts in engine.lanes()] == [3, 2]
    engine.steer(3)
    assert spread({3: third}, hold.address, 20) == {3: 20}
    third.close()


def test_a_queue_that_stands_is_not_deaf_while_somebody_holds_it(engine, hold, clients):
    """Both stand: one is deaf, and told of; the other is congested."""
    hold(1), hold(2).do("drop()")
    for number in (1, 2):
        engine.steer(number)
        clients(hold.address, 2)
    engine.steer(1, 2)
    events = engine.wait_until(
        lambda events: (
            pressures(engine)[1] == engine.lib.RC_CONGESTED and deaf_events(engine, events)
        )
    )
    assert [event[0] for event in deaf_events(engine, events)] == [2]
    assert pressures(engine)[2] == engine.lib.RC_FREE


def test_a_worker_that_gives_up_while_its_queue_stands_is_found_out(engine, hold, clients):
    holders = [hold(1), hold(2)]
    engine.steer(1)
    clients(hold.address, 2)
    engine.steer(1, 2)
    engine.wait_until(lambda _: pressures(engine)[1] == engine.lib.RC_CONGESTED)
    holders[0].do("drop()")
    events = engine.wait_until(lambda events: deaf_events(engine, events))
    assert [event[0] for event in deaf_events(engine, events)] == [1]
    assert pressures(engine)[1] == engine.lib.RC_FREE  # nothing is known of a lane without a holder


def test_when_all_are_deaf_they_go_on_queueing(engine, hold, clients):
    """As the lanes of the dead do: an heir will come."""
    hold(1).do("drop()")
    engine.steer(1)
    assert engine.lib.rc_deaf(engine.pointer, 1) == 0
    assert lanes_of(engine, 1)[0].deaf
    clients(hold.address, 2)
    assert engine.lib.rc_deaf(engine.pointer, 1) == 2
    assert engine.lib.rc_deaf(engine.pointer, 7) == 0


def test_one_lane_of_several(engine, hold):
    hold(1, count=3).do("lanes.pop().close()")
    assert engine.lib.rc_deaf(engine.pointer, 1) == 0
    assert sorted(lane.deaf for lane in lanes_of(engine, 1)) == [False, False, True]


def test_what_a_turn_has_no_room_to_tell_is_found_out_later(engine, hold, clients):
    hold(1).do("drop()")
    engine.steer(1)
    (lane,) = lanes_of(engine, 1)
    clients(hold.address, 1)
    engine.struct.text_count = 64
    assert not engine.lib.rc_lane_is_deaf(engine.struct, lane)
    assert engine.wait_until(lambda events: deaf_events(engine, events))


# ---- listening in its place ---------------------------------------------------------------------


def test_a_predecessor_that_listens_keeps_its_lane(engine, hold, clients):
    hold(1)
    engine.steer(1)
    clients(hold.address, 2)
    second = listener(engine, engine.worker(2, heir_of=1), hold.address)
    assert [(facts[0], facts[2]) for facts in engine.lanes()] == [(1, 2), (2, 0)]
    second.close()


def test_an_heir_finds_out_for_itself(engine, hold, clients):
    hold(1).do("drop()")
    engine.steer(1)
    waiting = clients(hold.address, 2)
    second = listener(engine, engine.worker(2, heir_of=1), hold.address)
    assert arrivals({2: second}, waiting)
    second.close()


def test_a_worker_that_listens_again_gets_its_own_queue_back(engine, hold, clients):
    """Else its old lane would stay in the group, with nobody to accept."""
    hold(1).do("drop()")
    engine.steer(1)
    waiting = clients(hold.address, 2)
    worker = engine.lib.rc_find(engine.struct, 1)
    again = listener(engine, worker, hold.address)
    assert len(engine.lanes()) == 1
    assert arrivals({1: again}, waiting)
    assert deaf_events(engine, engine.wait(0)) == []
    another = listener(engine, worker, hold.address)  # the first is in its place
    worker.pid = os.getpid()
    assert len(engine.lanes()) == 2
    for sock in (again, another):
        sock.close()


def test_an_adopted_lane_may_be_on_its_way_for_a_while(engine, hold, clients):
    """In the shim's message no process has it; connections wait in it already."""
    hold(1).do("drop()")
    engine.steer(1, 2)
    clients(hold.address, 2)
    second = listener(engine, engine.worker(2, heir_of=1), hold.address)
    worker = engine.lib.rc_find(engine.struct, 2)
    holder = hold.of(worker)
    second.close()
    assert is_held(engine, 2) == -errno.EAGAIN
    assert engine.lib.rc_deaf(engine.pointer, 2) == 0 and not lanes_of(engine, 2)[0].deaf
    lanes_of(engine, 2)[0].arrives_until_ms = 1  # the while is over
    assert is_held(engine, 2) == 0
    holder.stop()


def test_once_seen_it_has_arrived(engine, hold, clients):
    hold(1).do("drop()")
    engine.steer(1)
    clients(hold.address, 1)
    second = listener(engine, engine.worker(2, heir_of=1), hold.address)
    engine.lib.rc_find(engine.struct, 2).pid = os.getpid()
    assert is_held(engine, 2) == 1 and lanes_of(engine, 2)[0].arrives_until_ms == 0
    second.close()
    assert is_held(engine, 2) == 0


@pytest.mark.parametrize("heir", [1, 2])
def test_a_lane_that_could_not_be_put_in_place_is_as_before(engine, hold, clients, heir):
    hold(1).do("drop()")
    engine.steer(1)
    waiting = clients(hold.address, 1)
    worker = engine.worker(2, 1) if heir == 2 else engine.lib.rc_find(engine.struct, 1)
    with stream(FOUR, socket.SO_REUSEADDR) as sock:
        engine.bind(worker, sock, hold.address)
        answer = engine._ask(engine.lib.rc_lanes_listen, worker, sock)
        engine.lib.rc_lanes_refused(answer)
    (lane,) = lanes_of(engine, 1)
    assert lane.deaf == (heir == 2)  # of what it was told already it need not be again
    third = listener(engine, engine.worker(3, heir_of=1), hold.address)
    assert arrivals({3: third}, waiting)
    third.close()


# ---- shutting down ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_shutting_a_lane_down_is_told_at_once(engine, hold, count):
    holder = hold(1, count)
    holder.do("lanes[0].shutdown(socket.SHUT_RDWR)")
    events = engine.wait_until(lambda events: deaf_events(engine, events))
    assert deaf_events(engine, events) == [(1, count - 1, text(hold.address))]


def test_of_the_dead_nothing_is_told(engine):
    lane = engine.lane(1)
    engine.lib.rc_find(engine.struct, 1).dead = True
    lane.shutdown(socket.SHUT_RDWR)
    events = engine.wait_until(lambda _: not engine.struct.groups)
    assert deaf_events(engine, events) == []
    lane.close()


# ---- hold ----------------------------------------------------------------------------------


def hold_address(engine, address, on):
    return check(engine.lib.rc_hold(engine.pointer, text(address), on), "rc_hold")


def waits(address):
    """Whether a client is neither taken nor refused; it gives up."""
    client, error = start_connect(address)
    with client:
        assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
        return error == errno.EINPROGRESS and not ready(client, select.POLLOUT, 200)


def test_a_held_address_takes_nothing_and_keeps_what_it_has(engine, clients):
    lane = engine.lane(1)
    address = lane.getsockname()
    engine.steer(1)
    waiting = clients(address, 3)
    engine.lib.rc_find(engine.struct, 1).dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    assert not waits(address)
    assert hold_address(engine, address, True) == 1
    assert waits(address)
    assert queue_of(lane) >= 3
    # Somebody who listens is live at once, held or not.
    worker = engine.worker(2, heir_of=1)
    engine.steer(1, 2)
    heir = listener(engine, worker, address)
    waiting |= clients(address, 1)
    assert waiting <= arrivals({2: heir}, waiting).keys()
    assert hold_address(engine, address, False) == 1
    engine.lib.rc_find(engine.struct, 2).dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    assert not waits(address)
    for sock in (lane, heir):
        sock.close()


def test_only_that_address_is_held(engine):
    one, two = engine.lane(1), engine.lane(2, ("127.0.0.2", 0))
    engine.steer(1, 2)
    for number in (1, 2):
        engine.lib.rc_find(engine.struct, number).dead = True
    assert hold_address(engine, one.getsockname(), True) == 1
    assert hold_address(engine, ("127.0.0.3", 1), True) == 0
    assert waits(one.getsockname()) and not waits(two.getsockname())
    for sock in (one, two):
        sock.close()


def test_a_hold_that_cannot_steer_says_so_and_holds_at_the_next_steer(engine, fault):
    lane = engine.lane(1)
    engine.steer(1)
    engine.lib.rc_find(engine.struct, 1).dead = True
    fault.arm(1, errno.ENOMEM, "setsockopt")
    assert engine.lib.rc_hold(engine.pointer, text(lane.getsockname()), 1) == -errno.ENOMEM
    fault.disarm()
    engine.steer(1)
    assert waits(lane.getsockname())
    lane.close()
