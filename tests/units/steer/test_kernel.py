"""Owns: steering by eBPF: exact turns and counts, one-step cutovers, and what happens
when the kernel refuses a part of it. Skipped where CAP_BPF is missing.
"""

import errno
import os
import select
import socket
from pathlib import Path

import pytest

from ..engine.test_faults import FAULTS, failed, trials  # noqa: F401
from ..harness import (
    Engine,
    accept_all,
    arrivals,
    check,
    connect,
    queue_of,
    ready,
    spread,
    start_connect,
    stream,
)
from ..kernelcase import (
    FOUR,
    LOOPBACK,
    PLACES,
    attached,
    counts,
    lanes_of,
    shut,
    uneven,
)
from ..lane.test_hammer import Load

# ---- round robin -------------------------------------------------------------------------


@pytest.mark.parametrize("family, host, client", PLACES)
def test_every_worker_has_its_turn(robin, family, host, client):
    lanes, address = lanes_of(robin, 4, (host, 0), family)
    robin.steer(1, 2, 3, 4)
    assert attached(robin)
    for count in (1, 4, 7, 200):
        assert uneven(spread(lanes, (client, address[1]), count)) <= 1
    robin.steer(2, 4)
    assert spread(lanes, (client, address[1]), 30) == {1: 0, 2: 15, 3: 0, 4: 15}
    shut(lanes)


def test_a_worker_with_more_lanes_has_no_more_turns(robin):
    lanes, address = lanes_of(robin, 3)
    worker = robin.lib.rc_find(robin.struct, 2)
    for number in (21, 22):
        lanes[number] = stream(FOUR, socket.SO_REUSEADDR)
        robin.bind(worker, lanes[number], address)
        assert robin.listen(worker, lanes[number])
    robin.steer(1, 2, 3)
    found = spread(lanes, address, 90)
    assert (found[1], found[3]) == (30, 30)
    assert {found[2], found[21], found[22]} == {10}
    shut(lanes)


def test_steering_to_the_same_does_not_lose_the_turn(robin):
    lanes, address = lanes_of(robin, 3)
    total = dict.fromkeys(lanes, 0)
    for _ in range(30):
        robin.steer(3, 2, 1)
        for number, count in spread(lanes, address, 1).items():
            total[number] += count
    assert total == {1: 10, 2: 10, 3: 10}
    shut(lanes)


def test_two_groups_have_turns_of_their_own(robin):
    lanes, one = lanes_of(robin, 2)
    others, two = {}, LOOPBACK
    for number in (1, 2):
        worker = robin.lib.rc_find(robin.struct, number)
        others[number] = stream(FOUR, socket.SO_REUSEADDR)
        two = robin.bind(worker, others[number], ("127.0.0.2", two[1]))
        assert robin.listen(worker, others[number])
    robin.steer(1, 2)
    for _ in range(5):
        assert spread(lanes, one, 2) == {1: 1, 2: 1}
        assert spread(others, two, 2) == {1: 1, 2: 1}
    shut(lanes)
    shut(others)


# ---- the set changes ------------------------------------------------------------------------


def test_nobody_chosen_is_the_sink(balanced, policy):
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 2)
    assert attached(engine)
    client, error = start_connect(address)
    assert error == errno.EINPROGRESS and not ready(client, select.POLLOUT, 200)
    engine.steer(2)
    assert ready(client, select.POLLOUT, 4000)
    assert set(arrivals(lanes, {client.getsockname()[1]}).values()) == {2}
    with engine.sink() as sink:
        assert queue_of(sink) == 1
    client.close()
    shut(lanes)


def test_after_a_cutover_nothing_goes_to_the_old(balanced, policy):
    """Both while it is quiet, and from inside each system call of the engine."""
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 6)
    sets = [(1, 2, 3), (4, 5, 6), (1,), (2, 3, 4, 5, 6)]
    for live in sets * 5:
        engine.steer(*live)
        found = spread(lanes, address, 12)
        assert {number for number, count in found.items() if count} == set(live)
        assert uneven({number: found[number] for number in live}) <= 1
    assert attached(engine)
    shut(lanes)


def test_lanes_come_and_go_under_load(balanced, policy, fault):
    """A client begins before each call the engine makes; nobody is wrong or lost."""
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 4)
    engine.steer(2, 4)
    begun = []

    def now(name):
        begun.append(start_connect(address))

    with fault.before_each_call(now):
        lanes.pop(1).close()
        engine.bury(1)
        lanes.pop(3).close()
        engine.bury(3)
    lanes[5] = engine.lane(5, address)
    assert len(begun) >= 2
    for client, error in begun:
        assert error in (0, errno.EINPROGRESS) and ready(client, select.POLLOUT, 4000)
    came = arrivals(lanes, {client.getsockname()[1] for client, _ in begun})
    assert set(came.values()) <= {2, 4}
    engine.steer(2, 4, 5)
    assert attached(engine) and uneven(spread(lanes, address, 30)) <= 1
    for client, _ in begun:
        client.close()
    shut(lanes)


def test_a_lane_that_its_worker_shut_down_is_passed_over(balanced, policy):
    """Before the engine has heard of it: no client is refused, none is at random."""
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 4)
    engine.steer(1, 2, 3)  # 4 is retired
    lanes.pop(2).shutdown(socket.SHUT_RDWR)
    found = spread(lanes, address, 40)
    assert found[4] == 0 and found[1] and found[3]
    engine.wait_until(lambda _: len(engine.lanes()) == 3)
    assert attached(engine) and uneven({n: spread(lanes, address, 20)[n] for n in (1, 3)}) <= 1
    shut(lanes)


def test_with_nobody_left_and_no_sink_a_client_is_refused(balanced, policy, fault):
    """Rather than given to the retired lane, which the kernel's hash would do."""
    engine = balanced(policy)
    fault.arm(1, errno.EMFILE, "socket")
    lanes, address = lanes_of(engine, 3)
    assert fault.disarm() == 1 and engine.sink() is None
    engine.steer(1, 2)
    assert attached(engine)
    for number in (1, 2):
        lanes[number].shutdown(socket.SHUT_RDWR)
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            connect(address)
    shut(lanes)


def test_an_entry_of_another_version_is_not_used(balanced, policy, ffi):
    """What a program reads while the master already writes the plan after the next."""
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 2)
    engine.steer(1, 2)
    plan = engine.struct.groups.plan.shared
    entry = plan.side[plan.version & 1].entry
    for stale in ((0, 1), (1,)):
        for at in stale:
            entry[at] ^= 1 << 16
        client, error = start_connect(address)
        if len(stale) == 2:
            assert error == errno.EINPROGRESS and not ready(client, select.POLLOUT, 200)
        else:
            assert ready(client, select.POLLOUT)
            assert set(arrivals(lanes, {client.getsockname()[1]}).values()) == {1}
        for at in stale:
            entry[at] ^= 1 << 16
        client.close()
    assert uneven(spread(lanes, address, 20)) <= 1
    shut(lanes)


def test_an_orphan_s_heir_takes_its_place(balanced, policy, held):
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 2)
    engine.steer(1, 2)
    lanes[1].close()
    engine.lib.rc_find(engine.struct, 1).dead = True
    check(engine.lib.rc_lanes_resteer(engine.struct))
    heir, lanes[1] = engine.worker(3, heir_of=1), stream(FOUR, socket.SO_REUSEADDR)
    engine.bind(heir, lanes[1], address)
    assert engine.listen(heir, lanes[1])
    engine.steer(2, 3)
    assert spread(lanes, address, 10) == {1: 5, 2: 5}
    shut(lanes)


def test_256_slots(balanced, policy):
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 256)
    engine.steer(*lanes)
    assert attached(engine)
    assert set(spread(lanes, address, 512).values()) == {2}
    shut(lanes)


def test_a_plan_for_few_lanes_is_exchanged_for_one_for_all(balanced, policy, held):
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 40)
    engine.steer(*range(1, 31))
    connections = held(lanes, address)
    connections.open(30)
    engine.steer(*lanes)
    assert attached(engine)
    connections.open(10 if policy == "least_connections" else 40)
    counts = connections.counts()
    assert all(counts[number] for number in lanes) and uneven(counts) <= 1
    engine.steer(39, 40)
    assert uneven(spread({39: lanes[39], 40: lanes[40]}, address, 10)) <= 1
    shut(lanes)


def test_more_lanes_than_a_plan_has_room_for_are_steered_to_at_random(robin):
    lanes, address = lanes_of(robin, 513)
    robin.steer(*lanes)
    assert not attached(robin)
    robin.steer(1, 513)
    assert attached(robin)
    assert {number for number, count in spread(lanes, address, 8).items() if count} == {1, 513}
    shut(lanes)


def test_numbers_are_given_again(robin):
    """More lanes in a life than there are numbers at a time."""
    first = robin.lane(1)
    address = first.getsockname()
    seen = set()
    for number in range(2, 4400):
        lane = robin.lane(number, address)
        group = robin.struct.groups
        seen.add(group.lanes[group.count - 1].number)
        lane.close()
        robin.bury(number)
    assert attached(robin) and 0 not in seen and 4000 < len(seen) < 4096
    robin.steer(1)
    assert spread({1: first}, address, 3) == {1: 3}
    first.close()


def test_no_cutover_lets_one_through(balanced, policy):
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 4)
    with Load(address) as load:
        for number, lane in lanes.items():
            load.serve(number, lane)
        for turn in range(200):
            name = turn % 4 + 1
            load.steer(engine, name)
            load.served(name, 8)
    assert list(load.wrong.queue) == []
    assert attached(engine)
    shut(lanes)


# ---- refusals ----------------------------------------------------------------------------------


def test_the_policy_must_be_one_that_counts_or_turns_and_come_first(new_engine, ffi, lib, balanced):
    engine, refused = new_engine(), ffi.new("const char **")
    assert lib.rc_balance(engine.pointer, lib.RC_BALANCE_REUSEPORT) == 0
    assert lib.rc_balance_kernel(engine.pointer, refused) == -errno.EINVAL
    assert lib.rc_balance(engine.pointer, lib.RC_BALANCE_ROUND_ROBIN) == 0
    lane = engine.lane(1)
    assert lib.rc_balance_kernel(engine.pointer, refused) == -errno.EBUSY
    assert counts(engine) == {1: -1}
    lane.close()
    robin = balanced("round_robin")
    assert lib.rc_balance_kernel(robin.pointer, refused) == -errno.EBUSY


@pytest.mark.parametrize("error", FAULTS)
def test_opening(ffi, lib, trials, balanced, policy, error):  # noqa: F811
    balanced(policy).free()  # or skip
    refused = ffi.new("const char **")
    for trial in trials(error, least=5):
        with Engine(ffi, lib) as engine:
            number = getattr(lib, f"RC_BALANCE_{policy.upper()}")
            assert lib.rc_balance(engine.pointer, number) == 0
            result = trial.attempt(lib.rc_balance_kernel, engine.pointer, refused)
            if failed(trial, result, may_succeed=True):
                assert ffi.string(refused[0])
                assert lib.rc_balance_kernel(engine.pointer, refused) == 0
            lanes, address = lanes_of(engine, 2)
            engine.steer(1, 2)
            assert attached(engine) and spread(lanes, address, 4) == {1: 2, 2: 2}
            shut(lanes)


def other_cgroup():
    """A directory beside ours, or a reason to skip."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    ours = "".join(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = mount.split()
        if kind == "cgroup2":
            home = Path(where + ours)
            fresh = home / f"recluster-test-{os.getpid()}"
            try:
                fresh.mkdir()
            except OSError as error:
                pytest.skip(f"no cgroup of our own: {error.strerror}")
            return home, fresh
    pytest.skip("no cgroup of version 2 is to be seen")


def test_a_cgroup_that_our_sockets_are_not_in_is_found_out(
    balanced, new_engine, ffi, lib, fault, fds
):
    """The program sits on the one cgroup, the trial's sockets are made in another."""
    balanced("least_connections").free()  # or skip
    before, engine, refused = fds(), new_engine(), ffi.new("const char **")
    assert lib.rc_balance(engine.pointer, lib.RC_BALANCE_LEAST_CONNECTIONS) == 0
    home, fresh = other_cgroup()

    def move(to):
        (to / "cgroup.procs").write_text(str(os.getpid()))

    def now(name):
        if name == b"socket":
            move(home)

    try:
        move(fresh)
        with fault.before_each_call(now):
            result = lib.rc_balance_kernel(engine.pointer, refused)
    finally:
        move(home)
        fresh.rmdir()
    assert result == -errno.ENOMSG
    assert ffi.string(refused[0]) == b"a connection to try the counting"
    assert lib.rc_balance_kernel(engine.pointer, refused) == 0
    engine.free()
    assert fds() == before


def bpf_number():
    return {"x86_64": 321, "aarch64": 280}[os.uname().machine]


@pytest.mark.parametrize("n", [1, 2])
def test_a_lane_that_gets_no_place_is_steered_to_by_classic_bpf(balanced, fault, fds, policy, n):
    before = fds()
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 2)
    engine.steer(1, 2)
    fault.arm(n, errno.ENOMEM, "syscall", bpf_number())
    lanes[3] = engine.lane(3, address)
    fired = fault.disarm()
    assert fired == (policy == "least_connections" or n == 1)
    assert attached(engine) != fired
    for live in ({3}, {1, 2}, {1, 2, 3}):
        fault.arm(1, errno.ENOMEM, "syscall", bpf_number(), sticky=True)
        engine.steer(*live)
        fault.disarm()
        found = spread(lanes, address, 60)
        assert {number for number, count in found.items() if count} == live
    engine.steer(1, 2, 3)  # there is memory again
    assert attached(engine)
    assert spread(lanes, address, 30) == dict.fromkeys(lanes, 10)
    shut(lanes)
    engine.free()
    assert fds() == before


def test_without_any_memory_the_old_set_stays(balanced, fault, policy):
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 2)
    engine.steer(1)
    fault.arm(1, errno.ENOMEM, "syscall", bpf_number(), sticky=True)
    lanes[3] = engine.lane(3, address)
    fault.disarm()
    assert not attached(engine)  # a classic program has taken over
    fault.arm(1, errno.ENOMEM, "setsockopt", sticky=True)
    assert engine.lib.rc_steer(engine.pointer, [(2, 1.0)], 1) == -errno.ENOMEM
    fault.disarm()
    found = spread(lanes, address, 12)
    assert {number for number, count in found.items() if count} == {1}
    engine.steer(2)
    found = spread(lanes, address, 12)
    assert attached(engine) and found == {1: 0, 2: 12, 3: 0}
    shut(lanes)


def test_nothing_is_left_of_it(balanced, fds, policy):
    before = fds()
    engine = balanced(policy)
    opened = len(fds()) - len(before)
    for round_ in range(3):
        lanes, _ = lanes_of_new_workers(engine, round_ * 3)
        engine.steer(*lanes)
        shut(lanes)
        for number in lanes:
            engine.bury(number)
    assert len(fds()) - len(before) <= opened
    engine.free()
    assert fds() == before


def lanes_of_new_workers(engine, base):
    lanes, address = {}, LOOPBACK
    for number in range(base + 1, base + 4):
        lanes[number] = engine.lane(number, address)
        address = lanes[base + 1].getsockname()
    return lanes, address


def test_weights_that_differ_are_kept_by_a_classic_program(balanced, policy):
    """As a canary's: turns know nothing of parts. Afterwards it is turns again."""
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 3)
    engine.steer(1, 2, 3, w1=0.98, w2=0.01, w3=0.01)
    assert not attached(engine)
    assert spread(lanes, address, 200)[1] > 150
    engine.steer(1, 2, 3, w1=0)
    assert spread(lanes, address, 20)[1] == 0
    engine.steer(1, 2, 3)
    assert attached(engine)
    assert uneven(spread(lanes, address, 30)) <= 1
    shut(lanes)


def test_a_queue_that_stands_for_a_moment_takes_its_turn_away_from_nobody(balanced, policy):
    """Exact turns are given up only for who has stood still for five seconds."""
    engine = balanced(policy)
    lanes, address = lanes_of(engine, 3)
    engine.steer(1, 2, 3)
    clients = [connect(address) for _ in range(3)]
    first = {lane.worker.id: lane for lane in engine.struct.groups.lanes[0:4] if lane.worker}[1]

    def look_until(condition):
        engine.wait_until(lambda _: condition(first.pressure))

    for number in (2, 3):
        assert ready(lanes[number])
        accept_all(lanes[number])
    look_until(lambda pressure: pressure.congested)
    assert [facts[1] for facts in engine.lanes()] == [True, True, True]
    engine.wait_until(lambda _: not all(facts[1] for facts in engine.lanes()), 60)
    assert [facts[1] for facts in engine.lanes()] == [False, True, True]
    assert spread({2: lanes[2], 3: lanes[3]}, address, 4) == {2: 2, 3: 2}
    assert len(accept_all(lanes[1])) == 1
    engine.wait_until(lambda _: not first.pressure.congested)
    assert attached(engine) and uneven(spread(lanes, address, 9)) <= 1
    for client in clients:
        client.close()
    shut(lanes)
