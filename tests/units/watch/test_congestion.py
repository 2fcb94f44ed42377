"""What a lane's queue, and its worker, say of it; and that steering minds it."""

import contextlib
import os
import select
import socket
import threading
from pathlib import Path

import pytest

from ..harness import Clock, Engine, accept_all, connect, lanes_of_workers, queue_of, spread
from ..programs import WAITS, WORKS, doing, program, programs_as_workers


def pressures(engine):
    """worker -> the pressure of its lane."""
    facts = engine.ffi.new("struct rc_lane_facts[]", 64)
    count = engine.lib.rc_lanes(engine.pointer, facts, 64)
    return {one.worker: one.pressure for one in facts[0:count]}


@pytest.fixture
def two(ffi, lib):
    """An engine with two live workers of one lane each."""
    with Engine(ffi, lib) as engine:
        first = engine.lane(1)
        lanes = {1: first, 2: engine.lane(2, first.getsockname())}
        engine.steer(1, 2)
        with contextlib.ExitStack() as clients:
            yield engine, lanes, clients
        for lane in lanes.values():
            lane.close()


def fill(lanes, clients, *wanted):
    """Connect until something waits in each of the wanted lanes; the others take."""
    clock = Clock()
    while not all(queue_of(lanes[name]) for name in wanted):
        clients.enter_context(connect(lanes[1].getsockname()))
        for name in lanes.keys() - set(wanted):
            accept_all(lanes[name])
        clock.left_ms()


def test_5_a_lane_that_stands_still_is_avoided_until_it_takes(two):
    engine, lanes, clients = two
    fill(lanes, clients, 1)
    engine.wait_until(lambda _: pressures(engine)[1] == engine.lib.RC_CONGESTED)
    accept_all(lanes[2])
    queued = queue_of(lanes[1])
    ports = [clients.enter_context(connect(lanes[1].getsockname())) for _ in range(40)]
    assert queue_of(lanes[1]) == queued and len(accept_all(lanes[2])) == len(ports)
    accept_all(lanes[1])
    engine.wait_until(lambda _: pressures(engine)[1] == engine.lib.RC_FREE)
    assert min(spread(lanes, lanes[1].getsockname(), 100).values()) > 0


@pytest.mark.parametrize("weights", [{"w1": 3}, {"w2": 0.1}])
def test_parts_that_were_asked_for_are_kept_until_a_worker_is_stuck(two, weights):
    """Then it is avoided, told of when it hangs, and gets its part when it takes."""
    engine, lanes, clients = two
    engine.steer(1, 2, **weights)
    fill(lanes, clients, 1)
    pressure, looks = lanes_of_workers(engine)[1].pressure, set()
    engine.wait_until(lambda _: pressures(engine)[1] == engine.lib.RC_CONGESTED)
    if pressure.still_us < 100_000:  # the machine has not stood still
        assert engine.lanes()[0][1] is True
    engine.wait_until(lambda _: looks.add(pressure.interval) or not engine.lanes()[0][1])
    assert pressure.still_us > 100_000
    assert looks <= {5000, 10_000}  # few would take one connection after another for the same
    engine.wait_until(lambda _: pressures(engine)[1] == engine.lib.RC_HUNG, 20)
    accept_all(lanes[1])
    engine.wait_until(lambda _: engine.lanes()[0][1])
    assert min(spread(lanes, lanes[1].getsockname(), 200).values()) > 0


def test_by_address_nothing_is_avoided(new_engine):
    engine = new_engine()
    engine.balance("source_ip")
    first = engine.lane(1)
    lanes = {1: first, 2: engine.lane(2, first.getsockname())}
    engine.place(1, 0)
    engine.place(2, 1)
    engine.steer(1, 2)
    home = max(spread(lanes, first.getsockname(), 1).items(), key=lambda one: one[1])[0]
    clients = [connect(first.getsockname()) for _ in range(3)]
    engine.wait_until(lambda _: pressures(engine)[home] == engine.lib.RC_CONGESTED)
    clients += [connect(first.getsockname()) for _ in range(10)]
    assert queue_of(lanes[home]) == 13
    for sock in (*clients, *lanes.values()):
        sock.close()


def test_where_all_stand_still_none_is_avoided(two):
    engine, lanes, clients = two
    fill(lanes, clients, 1, 2)
    congested = {1: engine.lib.RC_CONGESTED, 2: engine.lib.RC_CONGESTED}
    engine.wait_until(lambda _: pressures(engine) == congested)
    assert min(spread(lanes, lanes[1].getsockname(), 100).values()) > 0


def test_hung_is_told_once_and_so_is_its_end(two):
    engine, lanes, clients = two
    fill(lanes, clients, 1)

    def told(kind):
        return lambda events: kind in {event[0] for event in events}

    events = engine.wait_until(told(engine.lib.RC_EVENT_HUNG), 20)
    assert events == [(engine.lib.RC_EVENT_HUNG, 1, queue_of(lanes[1]), b"")]
    assert pressures(engine)[1] == engine.lib.RC_HUNG
    accept_all(lanes[1])
    events = engine.wait_until(told(engine.lib.RC_EVENT_TAKES), 20)
    assert events == [(engine.lib.RC_EVENT_TAKES, 1, 0, b"")]
    assert pressures(engine)[1] == engine.lib.RC_FREE


def test_a_worker_hangs_whatever_its_sibling_does(two):
    """Whose queue is never shorter at a look, and who takes all the same: it never hangs."""
    engine, lanes, clients = two
    clock, hung = Clock(20), engine.lib.RC_HUNG
    while pressures(engine)[1] != hung:
        while min(map(queue_of, lanes.values())) < 3:
            clients.enter_context(connect(lanes[1].getsockname()))
        assert pressures(engine)[2] != hung
        engine.wait(clock.left_ms())
        lanes[2].accept()[0].close()
    before = queue_of(lanes[1])
    for _ in range(20):
        clients.enter_context(connect(lanes[1].getsockname()))
    assert queue_of(lanes[1]) == before


def test_all_may_hang_and_then_none_is_avoided(two):
    engine, lanes, clients = two
    fill(lanes, clients, 1, 2)
    both = {1: engine.lib.RC_HUNG, 2: engine.lib.RC_HUNG}
    engine.wait_until(lambda _: pressures(engine) == both, 20)
    assert min(spread(lanes, lanes[1].getsockname(), 100).values()) > 0


def test_the_successor_of_a_hung_worker_starts_anew(two):
    engine, lanes, clients = two
    fill(lanes, clients, 1)
    engine.wait_until(lambda _: pressures(engine)[1] == engine.lib.RC_HUNG, 20)
    old = engine.lib.rc_find(engine.struct, 1)
    assert old.hung_lanes == 1
    old.dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    assert (old.hung_lanes, pressures(engine)[1]) == (0, engine.lib.RC_FREE)
    heir = engine.worker(3, heir_of=1)
    sock = socket.socket()
    sock.setblocking(False)
    engine.bind(heir, sock, lanes[1].getsockname())
    assert engine.listen(heir, sock)
    engine.steer(2, 3)
    assert heir.hung_lanes == 0 and accept_all(sock)
    sock.close()


def test_a_retired_worker_is_not_looked_at(two):
    engine, lanes, clients = two
    fill(lanes, clients, 1)
    engine.steer(2)
    assert pressures(engine)[1] == engine.lib.RC_FREE
    fill({1: lanes[1], 2: lanes[2]}, clients, 2)
    engine.wait_until(lambda _: pressures(engine)[2] == engine.lib.RC_CONGESTED)
    assert pressures(engine)[1] == engine.lib.RC_FREE


# ---- what a worker does ------------------------------------------------------------------


@pytest.mark.parametrize("wait", WAITS)
def test_waiting_for_connections(ffi, lib, wait):
    with Engine(ffi, lib) as engine, program(WAITS[wait]) as process:
        worker = engine.worker(1)
        worker.pid = process.pid
        assert doing(engine, worker, lib.RC_ACTIVITY_WAIT)
        assert worker.seen_waiting and not worker.inscrutable
        worker.pid = 0


@pytest.mark.parametrize("work", WORKS)
def test_working(ffi, lib, work):
    code = f"{WAITS['poll']}; os.read(0, 1)\n{WORKS[work]}"
    with Engine(ffi, lib) as engine, program(code) as process:
        worker = engine.worker(1)
        worker.pid = process.pid
        assert doing(engine, worker, lib.RC_ACTIVITY_WAIT)
        process.stdin.write(b".")
        process.stdin.flush()
        assert doing(engine, worker, lib.RC_ACTIVITY_WORK)
        worker.pid = 0


def test_one_that_was_never_seen_waiting_is_not_judged(ffi, lib):
    """Its connections may be accepted elsewhere than in its main thread."""
    with Engine(ffi, lib) as engine, program("os.read(0, 1)") as process:
        worker = engine.worker(1)
        worker.pid = process.pid
        call = Path(f"/proc/{process.pid}/syscall")
        clock = Clock(20)
        while not call.read_text().startswith("0 0x0 "):  # it reads
            clock.left_ms()
        assert lib.rc_worker_activity(worker) == lib.RC_ACTIVITY_UNKNOWN
        worker.pid = 0


def test_one_that_is_gone_is_not_asked_again(ffi, lib):
    with Engine(ffi, lib) as engine, program("pass") as process:
        worker = engine.worker(1)
        process.wait()
        worker.pid = process.pid  # reaped: there is no such file
        assert lib.rc_worker_activity(worker) == lib.RC_ACTIVITY_UNKNOWN
        assert worker.inscrutable
        worker.pid = 0


def test_a_busy_worker_is_avoided(ffi, lib):
    """With balance=auto: nobody waits in its lane, and yet it would be wrong."""
    code = f"{WAITS['poll']}; os.read(0, 1)\n{WORKS['sleep']}"
    with programs_as_workers(ffi, lib, code, WAITS["poll"]) as (engine, processes, lanes):
        address = lanes[1].getsockname()
        processes[1].stdin.write(b".")
        processes[1].stdin.flush()
        with contextlib.ExitStack() as clients:
            fill(lanes, clients, 1)
            engine.wait_until(lambda _: pressures(engine)[1] == lib.RC_CONGESTED)
            accept_all(lanes[1])  # by whoever: it is not judged by its queue then
            engine.wait_until(lambda _: pressures(engine)[1] == lib.RC_BLOCKED)
            assert spread(lanes, address, 40) == {1: 0, 2: 40}


def test_who_was_given_one_in_a_vigil_is_not_given_the_next(ffi, lib):
    """What its worker does would be seen a moment later."""
    with (
        programs_as_workers(ffi, lib, *[WAITS["poll"]] * 3) as (engine, _, lanes),
        contextlib.ExitStack() as clients,
    ):
        address = lanes[1].getsockname()
        lib.rc_polling_begin(engine.struct, lib.rc_now_us())
        for _ in lanes:
            clients.enter_context(connect(address))
            (number,) = [number for number, lane in lanes.items() if queue_of(lane)]
            lib.rc_lane_arrival(engine.struct, lanes_of_workers(engine)[number])
            assert pressures(engine)[number] == lib.RC_TAKING
            clients.enter_context(connect(address))
            others = [name for name, lane in lanes.items() if accept_all(lane) and name != number]
            assert len(others) == 1  # before any look
            engine.wait_until(lambda _: set(pressures(engine).values()) == {lib.RC_FREE})


def test_after_fast_connections_a_vigil_begins_when_they_come_slower(two):
    """At the next count, and at none before: the times are the test's own."""
    engine, lanes, _ = two
    struct, lib, start = engine.struct, engine.lib, engine.lib.rc_now_us()

    def come(count):
        for _ in range(count):
            connect(lanes[1].getsockname()).close()
        for lane in lanes.values():
            accept_all(lane)

    def begins(after_ms):
        lib.rc_polling_begin(struct, start + after_ms * 1000)
        return lib.rc_polling_on(struct, start + after_ms * 1000)

    assert begins(0)
    come(100)
    assert lib.rc_polling_goes_on(struct, 2, start + 99_000)  # not counted yet
    assert not lib.rc_polling_goes_on(struct, 2, start + 100_000)  # 1000/s, and 600 are too many
    assert not begins(199)
    come(100)
    assert not begins(200)
    assert not begins(299)
    assert begins(3_600_000)
    assert lib.rc_polling_goes_on(struct, 2, start + 3_600_000_001)


def test_a_lane_under_traffic_is_looked_at_a_few_times_more(two):
    """Before it is armed again: the next connection would wake the master at once."""
    engine, lanes, clients = two
    lane, address = lanes_of_workers(engine)[1], lanes[1].getsockname()
    for ago, hot in ((10**6, 0), (0, 8)):
        while not queue_of(lanes[1]):
            clients.enter_context(connect(address))
        lane.pressure.armed_at = engine.lib.rc_now_us() - ago
        engine.lib.rc_lane_arrival(engine.struct, lane)
        assert (lane.pressure.hot, lane.source.armed) == (hot, 0)
        accept_all(lanes[1])
        seen = {hot}
        engine.wait_until(lambda _: seen.add(lane.pressure.hot) or lane.source.armed)  # noqa: B023
        assert lane.pressure.hot == 0
        assert len(seen) > hot // 2  # not all at once


def test_arrivals_alone_do_not_end_a_wait_but_now_and_then(two):
    """The engine deals with them; a signal's flag may have been set meanwhile."""
    engine, lanes, _ = two
    address, over, made = lanes[1].getsockname(), threading.Event(), []
    reader, writer = os.pipe()
    assert engine.lib.rc_watch(engine.pointer, reader) == 0

    def come():
        clock = Clock(20)
        while not over.is_set():
            if clock.is_over():
                os.write(writer, b".")
                return
            with connect(address):
                made.append(1)
                for lane in lanes.values():
                    accept_all(lane)

    thread = threading.Thread(target=come)
    thread.start()
    try:
        engine.wait(0)
        before = len(made)
        assert engine.wait(-1) == []
        assert len(made) > before + 1
    finally:
        over.set()
        thread.join()
        assert engine.lib.rc_unwatch(engine.pointer, reader) == 0
        os.close(reader)
        os.close(writer)


def test_a_group_at_rest_is_not_looked_at(two):
    """Nothing is due: the engine's descriptor does not become readable."""
    engine, lanes, clients = two
    clients.enter_context(connect(lanes[1].getsockname()))
    clock = Clock()
    while not any(accept_all(lane) for lane in lanes.values()):
        clock.left_ms()
    fd = engine.lib.rc_engine_fd(engine.pointer)
    while engine.struct.sweep_at or select.select([fd], [], [], 0)[0]:
        engine.wait(clock.left_ms())
    assert pressures(engine) == {1: engine.lib.RC_FREE, 2: engine.lib.RC_FREE}
