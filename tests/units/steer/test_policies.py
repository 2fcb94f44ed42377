"""Owns: what the programs by weight and by client address return, on paper and in the kernel."""

import collections
import ctypes
import errno
import ipaddress
import os
import random
import select
import socket
import struct

import pytest

from ..harness import accept_all, connect, needs_ipv6, ready, spread, stream

LD_W, LD_B, JGE, JEQ, JA, RET_K = 0x20, 0x30, 0x35, 0x15, 0x05, 0x06
AND, RSH, MUL, MOD, XOR_X, TAX = 0x54, 0x74, 0x24, 0x94, 0xAC, 0x07
RANDOM, NET = (-0x1000 + 56) & 0xFFFFFFFF, (-0x100000) & 0xFFFFFFFF
MASK = 0xFFFFFFFF
BUCKETS = 720
OPTMEM = 20480  # net.core.optmem_max before Linux 6.7
PROGRAM_HEAD = 80  # struct bpf_prog, at least


def choices_of(ffi, choices):
    names = ("index", "worker", "slot", "weight")
    return ffi.new("struct rc_choice[]", [dict(zip(names, one, strict=False)) for one in choices])


def build(ffi, function, choices, room=4096):
    out = ffi.new("struct sock_filter[]", room + 1)
    out[room].code = 0xFFFF
    length = function(choices_of(ffi, choices), len(choices), out, room)
    assert out[room].code == 0xFFFF
    return [(one.code, one.jt, one.jf, one.k) for one in out[0 : max(length, 0)]], length


def ebpf_bytes(text):
    """What the kernel makes of it (bpf_convert_filter, net/core/filter.c): a return
    or a jump of two ways is two instructions; a load of the packet is up to eight."""
    sizes = {RET_K: 2, LD_W: 8, LD_B: 8}
    return PROGRAM_HEAD + 8 * (
        8 + sum(sizes.get(code, 1 + (jt > 0 < jf)) for code, jt, jf, _ in text)
    )


def begin_of(text):
    """Where the search begins: behind the random number, or the hash."""
    return next((at + 1 for at, one in enumerate(text) if one[0] in (AND, MOD)), 0)


def parts_of(text, width=1 << 31):
    """{index: how many of `width` numbers}, from the search that ends a program."""
    found, paths = collections.Counter(), [(begin_of(text), 0, width)]
    while paths:
        at, low, high = paths.pop()
        code, jt, jf, k = text[at]
        if code == RET_K:
            found[k] += high - low
        elif code == JA:
            paths.append((at + 1 + k, low, high))
        else:
            assert code == JGE and low < k < high
            paths += [(at + 1 + jt, k, high), (at + 1 + jf, low, k)]
    return found


# ---- by weight -----------------------------------------------------------------------

WEIGHTS = {
    "three to one": [(0, 1, 0, 3), (1, 2, 1, 1)],
    "a canary of a tenth": [(0, 1, 0, 0.45), (1, 2, 1, 0.45), (2, 3, 0, 0.05), (3, 4, 1, 0.05)],
    "none for one": [(0, 1, 0, 0), (1, 2, 1, 2), (2, 3, 2, 1)],
    "none for the last": [(4, 1, 0, 1), (6, 2, 1, 0)],
    "two lanes of one worker": [(0, 1, 0, 1), (1, 2, 1, 3), (5, 2, 1, 3)],
    "a thousandth": [(0, 1, 0, 999), (9, 2, 1, 1)],
    "256 slots": [(at, at + 1, at, 1 + at % 7) for at in range(256)],
    "1000 lanes": [(at, at + 1, at, 1 + at % 2) for at in range(1000)],
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_worker_has_its_part_by_weight(ffi, lib, name):
    choices = WEIGHTS[name]
    text, length = build(ffi, lib.rc_weighted_build, choices)
    assert length > 0
    lanes = collections.Counter(worker for _, worker, _, _ in choices)
    weights = {worker: weight for _, worker, _, weight in choices}
    parts, total = parts_of(text), sum(weights.values())
    if len(text) > 1:
        assert [one[0] for one in text[:2]] == [LD_W, AND]
        assert (text[0][3], text[1][3]) == (RANDOM, (1 << 31) - 1)
    for index, worker, _, weight in choices:
        assert abs(parts[index] / (1 << 31) - weight / total / lanes[worker]) < 1e-8


def test_256_weighted_slots_fit_an_old_kernels_limit(ffi, lib):
    assert ebpf_bytes(build(ffi, lib.rc_weighted_build, WEIGHTS["256 slots"])[0]) < OPTMEM


def test_no_weight_at_all_is_an_error(ffi, lib):
    assert build(ffi, lib.rc_weighted_build, [(0, 1, 0, 0)])[1] == -errno.EINVAL
    assert build(ffi, lib.rc_weighted_build, WEIGHTS["256 slots"], 100)[1] == -errno.E2BIG


def test_a_weight_too_small_for_one_number_takes_no_others(ffi, lib):
    choices = [(0, 1, 0, 1e9), (1, 2, 1, 1e-9), (2, 3, 2, 1e9)]
    parts = parts_of(build(ffi, lib.rc_weighted_build, choices)[0])
    assert abs(parts[0] - parts[2]) <= 2 and parts[1] <= 1


# ---- by the client's address -----------------------------------------------------------


def run(text, address):
    """The index for a packet from that address, by an interpreter of the program."""
    ip = ipaddress.ip_address(address)
    if ip.version == 4:
        packet = struct.pack("=B11x4s", 0x45, ip.packed)
    else:
        packet = struct.pack("=B7x16s", 0x60, ip.packed)
    at = a = x = 0
    for _ in range(len(text) + 1):
        code, jt, jf, k = text[at]
        at += 1
        if code == RET_K:
            return k
        if code == LD_B:
            a = packet[k - NET]
        elif code == LD_W:
            a = int.from_bytes(packet[k - NET : k - NET + 4], "big")
        elif code in (JGE, JEQ):
            at += jt if (a >= k if code == JGE else a == k) else jf
        elif code == JA:
            at += k
        elif code == TAX:
            x = a
        elif code == XOR_X:
            a ^= x
        else:
            a = {MUL: a * k & MASK, RSH: a >> k, MOD: a % max(k, 1)}[code]
    raise AssertionError("the program does not end")


def sticky(ffi, lib, slots):
    """The program where each slot has one lane, whose index is not its number."""
    return build(ffi, lib.rc_sticky_build, [(9 + slot, 5000 - slot, slot, 1) for slot in slots])[0]


def table(ffi, lib, slots):
    """bucket -> slot."""
    text = sticky(ffi, lib, slots)
    found, paths = [None] * BUCKETS, [(begin_of(text), 0, BUCKETS)]
    while paths:
        at, low, high = paths.pop()
        code, jt, jf, k = text[at]
        if code == RET_K:
            found[low:high] = [k - 9] * (high - low)
        elif code == JA:
            paths.append((at + 1 + k, low, high))
        else:
            paths += [(at + 1 + jt, k, high), (at + 1 + jf, low, k)]
    return found


@pytest.mark.parametrize("count", [*range(1, 18), 31, 64, 100, 255, 256, 720, 1000])
def test_slots_have_equal_parts(ffi, lib, count):
    parts = collections.Counter(table(ffi, lib, range(count)))
    assert sum(parts.values()) == BUCKETS
    assert set(parts.values()) <= {BUCKETS // count, -(-BUCKETS // count)}
    assert len(parts) == min(count, BUCKETS)


def moves(before, after):
    return {(a, b) for a, b in zip(before, after, strict=True) if a != b}


@pytest.mark.parametrize("count", [2, 3, 4, 8, 16, 100, 256])
def test_a_slot_that_comes_takes_and_moves_nothing_between_others(ffi, lib, count):
    before, after = table(ffi, lib, range(count)), table(ffi, lib, range(count + 1))
    assert {b for _, b in moves(before, after)} == {count}


@pytest.mark.parametrize("seed", range(30))
def test_whatever_set_is_live_only_the_share_of_who_goes_or_comes_moves(ffi, lib, seed):
    dice = random.Random(seed)
    live = set(dice.sample(range(40), dice.randint(2, 30)))
    for _ in range(30):
        before, one = table(ffi, lib, live), dice.randrange(40)
        if one in live and len(live) > 1:
            live.remove(one)
            moved = moves(before, table(ffi, lib, live))
            assert {a for a, _ in moved} <= {one}
        elif one not in live:
            live.add(one)
            assert {b for _, b in moves(before, table(ffi, lib, live))} <= {one}
        assert set(table(ffi, lib, live)) <= live


@pytest.mark.parametrize("gone", [0, 1, 3, 7])
def test_what_a_slot_leaves_is_spread_over_the_others(ffi, lib, gone):
    parts = collections.Counter(table(ffi, lib, set(range(8)) - {gone}))
    assert len(parts) == 7 and max(parts.values()) <= 90 + 0.6 * 90


def test_a_canary_has_its_share_of_the_buckets_and_of_those_only(ffi, lib):
    old = [(slot, 1 + slot, slot, 0.9 / 4) for slot in range(4)]
    new = [(10 + slot, 11 + slot, slot, 0.1 / 4) for slot in range(4)]
    before = parts_of(build(ffi, lib.rc_sticky_build, old)[0], BUCKETS)
    parts = parts_of(build(ffi, lib.rc_sticky_build, old + new)[0], BUCKETS)
    assert sum(count for index, count in parts.items() if index >= 10) == BUCKETS // 10
    for slot in range(4):
        assert parts[slot] + parts[10 + slot] == before[slot]
        assert abs(parts[10 + slot] - 18) <= 3


def test_several_lanes_of_a_worker_are_all_used(ffi, lib):
    parts = parts_of(
        build(ffi, lib.rc_sticky_build, [(at, 1, 0, 1) for at in range(4)])[0], BUCKETS
    )
    assert set(parts) == {0, 1, 2, 3} and min(parts.values()) > 120


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [2, 4, 16])
def test_neighbouring_addresses_are_spread(ffi, lib, version, count):
    text = sticky(ffi, lib, range(count))
    for first in ("10.0.0.0", "192.168.3.0") if version == 4 else ("fd00::", "2001:db8:0:1::"):
        begin = int(ipaddress.ip_address(first))
        step = 1 if version == 4 else 1 << 64  # another network, as clients have
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        for each in (1, step):
            parts = collections.Counter(run(text, kind(begin + each * at)) for at in range(4096))
            fair = 4096 / count
            assert len(parts) == count
            assert all(abs(part - fair) < 7 * fair**0.5 for part in parts.values())


@pytest.mark.parametrize("slots", [range(256), range(0, 512, 2), range(720), [3, 900, 4000]])
def test_no_table_is_longer_than_an_old_kernel_takes(ffi, lib, slots):
    choices = [(2 * at, at + 1, slot, 1) for at, slot in enumerate(slots)]
    text = build(ffi, lib.rc_sticky_build, choices)[0]
    assert sum(one[0] == RET_K for one in text) < 1000
    assert ebpf_bytes(text) < OPTMEM


def test_what_cannot_be_is_an_error(ffi, lib):
    assert build(ffi, lib.rc_sticky_build, [])[1] == -errno.EINVAL
    assert build(ffi, lib.rc_sticky_build, [(0, 1, 1 << 16, 1)])[1] == -errno.EINVAL
    choices = [(at, at, at, 1) for at in range(100)]
    length = build(ffi, lib.rc_sticky_build, choices)[1]
    for room in {0, 1, 20, length // 2, length - 1}:
        assert build(ffi, lib.rc_sticky_build, choices, room)[1] == -errno.E2BIG


# ---- the real kernel --------------------------------------------------------------------


@pytest.fixture
def cluster(new_engine):
    """An engine of that policy with a lane for each slot 0..: (engine, lanes, address)."""
    made = []

    def make(policy, count, family=socket.AF_INET):
        engine = new_engine()
        engine.balance(policy)
        address = ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
        for slot in range(count):
            engine.worker(slot + 1)
            engine.place(slot + 1, slot)
            made.append(stream(family, socket.SO_REUSEADDR))
            address = engine.bind(engine.lib.rc_find(engine.struct, slot + 1), made[-1], address)
            assert engine.listen(engine.lib.rc_find(engine.struct, slot + 1), made[-1])
        return engine, dict(enumerate(made)), address

    yield make
    for sock in made:
        sock.close()


def slot_of(lanes, address, source):
    """Which slot a client from that address comes to."""
    client = stream(lanes[0].family)
    client.bind((source, 0))
    client.connect_ex(address[:2])
    port = client.getsockname()[1]
    assert ready(client, 4)
    found = None
    while found is None:
        for slot, lane in lanes.items():
            try:
                connection, peer = lane.accept()
            except BlockingIOError:
                continue
            connection.close()
            if peer[1] == port:
                found = slot
    client.close()
    return found


CLIENTS = [f"127.0.{at // 250}.{1 + at % 250}" for at in range(300)]


def test_a_client_comes_to_its_slot_again_and_again(cluster):
    engine, lanes, address = cluster("source_ip", 6)
    engine.steer(*range(1, 7))
    first = {client: slot_of(lanes, address, client) for client in CLIENTS}
    assert set(first.values()) == set(range(6))
    assert all(slot_of(lanes, address, client) == first[client] for client in CLIENTS)
    engine.steer(1, 2, 4, 5, 6)  # slot 2 goes
    second = {client: slot_of(lanes, address, client) for client in CLIENTS}
    assert {first[client] for client in CLIENTS if second[client] != first[client]} == {2}
    engine.steer(*range(1, 7))  # and comes again
    assert all(slot_of(lanes, address, client) == first[client] for client in CLIENTS)


def test_the_kernel_runs_the_program_as_the_interpreter_does(ffi, lib, cluster):
    engine, lanes, address = cluster("source_ip", 4)
    engine.steer(1, 2, 3, 4)
    text = build(ffi, lib.rc_sticky_build, [(slot, slot + 1, slot, 1) for slot in range(4)])[0]
    for client in CLIENTS[:60]:
        assert slot_of(lanes, address, client) == run(text, client)


def test_while_a_lane_moves_its_clients_wait_for_it(cluster):
    """Into the hole of one that is removed. No other slot has them meanwhile."""
    engine, lanes, address = cluster("source_ip", 4)
    engine.steer(*range(1, 5))
    first = {client: slot_of(lanes, address, client) for client in CLIENTS[:60]}
    assert set(first.values()) == set(range(4))
    group = engine.struct.groups
    assert engine.lib.rc_group_attach(group, group.count - 1) == 0  # slot 3's is the last
    waiting = []
    for client, slot in first.items():
        if slot != 3:
            assert slot_of(lanes, address, client) == slot
        elif len(waiting) < 5:
            waiting.append(stream())
            waiting[-1].bind((client, 0))
            waiting[-1].connect_ex(address)
    assert len(waiting) == 5 and not any(ready(one, select.POLLOUT, 200) for one in waiting)
    assert engine.lib.rc_lanes_resteer(engine.struct) == 0
    assert all(ready(one, select.POLLOUT) for one in waiting)
    assert len(accept_all(lanes[3])) == 5
    for one in waiting:
        one.close()


@needs_ipv6
def test_an_ipv6_client_has_its_slot_too(ffi, lib, cluster):
    engine, lanes, address = cluster("source_ip", 7, socket.AF_INET6)
    engine.steer(*range(1, 8))
    text = build(ffi, lib.rc_sticky_build, [(at, at + 1, at, 1) for at in range(7)])[0]
    # The sink joined behind the first lane, so the others are one further on.
    found = {slot_of(lanes, address, "::1") for _ in range(20)}
    index = run(build(ffi, lib.rc_sticky_build,
                      [(at and at + 1, at + 1, at, 1) for at in range(7)])[0], "::1")  # fmt: skip
    assert found == {index and index - 1} and run(text, "::1") == index - (index > 0)


def test_weights_are_the_chances(cluster):
    engine, lanes, address = cluster("weighted", 3)
    engine.steer(1, 2, 3, w1=3, w2=0)
    counts = spread(lanes, address, 400)
    assert counts[1] == 0
    assert abs(counts[0] - 300) <= 6 * (400 * 0.75 * 0.25) ** 0.5
    engine.steer(1, 2, 3, w1=0, w2=0)
    assert spread(lanes, address, 40) == {0: 0, 1: 0, 2: 40}


def test_a_weight_of_0_is_kept_when_the_others_are_dead(cluster):
    """Clients wait for the successor: a weight of 0 means no connection."""
    engine, lanes, address = cluster("weighted", 2)
    engine.steer(1, 2, w2=0)
    engine.lib.rc_find(engine.struct, 1).dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    assert spread(lanes, address, 20) == {0: 20, 1: 0}


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(cluster, weight):
    engine, _, _ = cluster("weighted", 1)
    with pytest.raises(OSError) as caught:
        engine.steer(1, w1=weight)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("policy", ["source_ip", "weighted"])
def test_the_kernel_takes_256_slots_within_the_limit_of_older_ones(policy, cluster, ffi, lib):
    """Where optmem_max belongs to the network namespace (6.9) it is lowered in one of
    our own; elsewhere it is what it is."""
    if os.geteuid():
        pytest.skip("a network namespace needs root")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert ctypes.CDLL(None).unshare(0x40000000) == 0
            os.system("ip link set lo up")
            if os.path.exists("/proc/sys/net/core/optmem_max"):
                with open("/proc/sys/net/core/optmem_max", "w") as file:
                    file.write(str(OPTMEM))
            engine, _, address = cluster(policy, 256)
            weights = {f"w{at + 1}": 1 + at % 5 for at in range(256)}
            engine.steer(*range(1, 257), **weights)
            clients = [connect(address) for _ in range(20)]
            assert len(clients) == 20
            live = [at for at in range(1, 257) if at % 3]  # with holes the table is ragged
            engine.steer(*live, **weights)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
