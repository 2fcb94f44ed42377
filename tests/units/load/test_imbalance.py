"""Whose worker has more open than the others; and that steering minds it."""

import os

import pytest

from ..harness import accept_all, connect, lanes_of_workers, spread
from ..programs import WAITS, programs_as_workers
from ..watch.test_congestion import pressures

# Opens as many as a line on stdin says, closes them after the next, then waits on.
OPENS = """
import sys
e = select.epoll(); e.register(lane); e.register(0)
def wait():
    while e.poll()[0][0] != 0: pass
    return int(sys.stdin.readline())
kept = []
while True:
    count = wait()
    while len(kept) > count: os.close(kept.pop())
    while len(kept) < count: kept.append(os.dup(0))
    print(count, flush=True)
"""


def opens(process, count):
    process.stdin.write(b"%d\n" % count)
    process.stdin.flush()
    assert process.stdout.readline() == b"%d\n" % count


@pytest.fixture
def three(ffi, lib):
    with programs_as_workers(ffi, lib, *[OPENS] * 3) as (engine, processes, lanes):
        yield engine, processes, lanes


def look(engine):
    engine.lib.rc_imbalance_look(engine.struct)
    return [number for number, one in pressures(engine).items() if one == engine.lib.RC_CROWDED]


def test_who_has_more_open_is_crowded(three):
    engine, processes, _ = three
    assert look(engine) == []
    for process in processes.values():
        opens(process, 100)
    assert look(engine) == []
    opens(processes[2], 101)  # by chance
    assert look(engine) == []
    opens(processes[2], 140)
    assert look(engine) == [2]
    for process in processes.values():
        opens(process, 140)
    assert look(engine) == []


def test_a_new_one_gets_all_until_it_is_level(three):
    """As after a respawn: the others have more than their part."""
    engine, processes, _ = three
    for number in (1, 3):
        opens(processes[number], 200)
    assert look(engine) == [1, 3]
    opens(processes[2], 198)
    assert look(engine) == []


def test_the_crowded_get_nothing_while_another_is_free(three):
    """An arrival leads to a look, and the look to a choice."""
    engine, processes, lanes = three
    address = lanes[1].getsockname()
    opens(processes[3], 50)
    with connect(address):
        engine.wait_until(lambda _: engine.struct.imbalance_at)
        for lane in lanes.values():
            accept_all(lane)  # else its lane is soon congested, which is worse than crowded
        engine.wait_until(lambda _: pressures(engine)[3] == engine.lib.RC_CROWDED)
        engine.wait_until(lambda _: not engine.struct.groups.stale)
        assert spread(lanes, address, 40)[3] == 0


def test_in_a_flood_only_who_has_fewer_counts(three):
    """Who was free a moment ago would get all of it until the next look."""
    engine, processes, _ = three
    lanes, lib = lanes_of_workers(engine), engine.lib
    had = dict.fromkeys(lanes, 0)

    def grow(**more):
        for number, count in more.items():
            had[int(number[1:])] += count
            opens(processes[int(number[1:])], had[int(number[1:])])
        return look(engine)

    grow()
    lanes[2].pressure.work = lib.RC_BLOCKED
    grow(w1=1, w3=2)
    assert not engine.struct.groups.flooded and pressures(engine)[2] == lib.RC_BLOCKED
    grow(w1=2, w3=2)
    assert engine.struct.groups.flooded
    assert set(pressures(engine).values()) == {lib.RC_FREE}
    assert grow(w3=40) == [3]
    lanes[2].pressure.congested = True  # it may only lack a CPU
    assert pressures(engine)[2] == lib.RC_FREE
    lanes[2].pressure.still_us = lib.RC_STARVED_US
    assert pressures(engine) == {1: lib.RC_FREE, 2: lib.RC_CONGESTED, 3: lib.RC_CROWDED}
    lanes[2].pressure.congested = False
    grow(w1=2)  # half of what began it
    assert engine.struct.groups.flooded
    grow(w1=1)
    assert not engine.struct.groups.flooded and pressures(engine)[2] == lib.RC_BLOCKED


def test_a_flood_ends_with_the_looks(three):
    engine, processes, _ = three
    look(engine)
    opens(processes[1], 10)
    look(engine)
    assert engine.struct.groups.flooded
    engine.lib.rc_imbalance_end(engine.struct)
    assert not engine.struct.groups.flooded
    opens(processes[1], 20)  # meanwhile: nothing is known of how fast
    look(engine)
    assert not engine.struct.groups.flooded


def test_who_comes_anew_is_no_flood(three):
    """A worker more has what any worker has open."""
    engine, *_ = three
    lanes = lanes_of_workers(engine)
    lanes[1].by_leader = False
    look(engine)
    lanes[1].by_leader = True
    look(engine)
    assert not engine.struct.groups.flooded


def test_the_first_look_says_nothing_of_the_cost(three):
    engine, _, _ = three
    assert engine.lib.rc_imbalance_look(engine.struct) == 0
    assert engine.lib.rc_imbalance_look(engine.struct) > 0


def test_looks_end_with_the_connections(three):
    engine, _, lanes = three
    with connect(lanes[1].getsockname()):
        engine.wait_until(lambda _: engine.struct.imbalance_at)
        engine.wait_until(lambda _: not engine.struct.imbalance_at)


def test_one_that_is_gone_is_not_counted(three):
    engine, processes, _ = three
    opens(processes[1], 50)
    processes[1].kill()
    processes[1].wait()  # reaped: there is no such folder
    assert look(engine) == []
    assert engine.struct.groups.lanes[0].pressure.open == -1


def test_names_are_counted_where_the_kernel_does_not(lib):
    """Before Linux 6.2 the folder has no size."""
    path = f"/proc/{os.getpid()}/fd"
    before = lib.rc_imbalance_names(path.encode())
    assert before == len(os.listdir(path))
    first, second = os.pipe()
    assert lib.rc_imbalance_names(path.encode()) == before + 2
    os.close(first)
    os.close(second)
    assert lib.rc_imbalance_names(b"/proc/0/fd") == -1


def test_who_accepts_elsewhere_is_not_judged(ffi, lib):
    with programs_as_workers(ffi, lib, WAITS["poll"], OPENS) as (engine, processes, _):
        group = engine.struct.groups
        for lane in group.lanes[0 : group.count]:
            lane.by_leader = False
        opens(processes[2], 50)
        assert look(engine) == []
