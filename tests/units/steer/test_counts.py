"""Owns: what is counted of a worker (csrc/steer/counts.c): never down, twice, or for nobody."""

import errno

import pytest

from ..harness import check, lanes_of_workers
from ..kernelcase import lanes_of, shut, until_counts


@pytest.fixture
def counts(ffi, lib):
    def of(engine, worker):
        out = ffi.new("struct rc_counts *")
        check(lib.rc_counts(engine.pointer, worker, out))
        return out.accepted, out.connections

    return of


def test_where_nobody_counts(engine, counts, lib, ffi):
    lanes, _ = lanes_of(engine, 2)
    engine.steer(1, 2)
    assert counts(engine, 1) == counts(engine, 2) == (-1, -1)
    out = ffi.new("struct rc_counts *")
    assert lib.rc_counts(engine.pointer, 99, out) == -errno.ESRCH
    shut(lanes)


def test_a_lane_that_is_counted_no_more_takes_nothing_back(engine, lib):
    """Its group has lost its programs, or it leaves twice: less than before is no count."""
    lanes, _ = lanes_of(engine, 1)
    engine.steer(1)
    lane = lanes_of_workers(engine)[1]
    lane.counted, lane.worker.accepted = 7, 5
    lib.rc_counts_note(lane)
    assert (lane.counted, lane.worker.accepted) == (7, 5)
    shut(lanes)


def test_what_the_kernel_has_counted_is_told_once(least, held, counts):
    lanes, address = lanes_of(least, 2)
    least.steer(1, 2)
    connections = held(lanes, address)
    connections.open(10)
    until_counts(least, connections.counts())
    got = [counts(least, worker) for worker in (1, 2)]
    assert [open_ for _, open_ in got] == [5, 5] and [all_ for all_, _ in got] == [5, 5]
    assert got == [counts(least, worker) for worker in (1, 2)]
    connections.lose(2, "server")
    connections.open(3)
    until_counts(least, connections.counts())
    assert sum(counts(least, worker)[0] for worker in (1, 2)) == 13
    shut(lanes)


def test_a_start_that_is_forgiven_is_no_connection(engine, lib):
    lanes, _ = lanes_of(engine, 1)
    engine.steer(1)
    worker = lanes_of_workers(engine)[1].worker
    worker.given = 3
    lib.rc_counts_forgive(worker, 2)
    assert (worker.given, worker.forgiven) == (3, 0)
    lib.rc_counts_forgive(worker, 10)
    assert (worker.given, worker.forgiven) == (10, 7)
    shut(lanes)
