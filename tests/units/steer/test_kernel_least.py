"""Owns: least connections in the kernel: what counts, from when, until when, and which
of equals comes first. Skipped where CAP_BPF is missing.
"""

import socket
import struct
import time

import pytest

from ..harness import Clock, accept_all, connect, lanes_of_workers, ready, spread
from ..kernelcase import PLACES, counts, lanes_of, shut, uneven, until_counts


@pytest.mark.parametrize("how", ["client", "server", "reset"])
@pytest.mark.parametrize("family, host, client", PLACES)
def test_the_next_ones_level_what_was_lost(least, held, how, family, host, client):
    lanes, address = lanes_of(least, 4, (host, 0), family)
    least.steer(1, 2, 3, 4)
    connections = held(lanes, (client, address[1]))
    connections.open(41)
    assert uneven(connections.counts()) <= 1
    until_counts(least, connections.counts())
    for number in (2, 3):
        connections.lose(number, how)
    until_counts(least, connections.counts())
    for _ in range(20):
        connections.open(1)
    until_counts(least, connections.counts())
    assert uneven(connections.counts()) <= 1
    shut(lanes)


def test_a_burst_does_not_herd(least, held):
    lanes, address = lanes_of(least, 4)
    least.steer(1, 2, 3, 4)
    connections = held(lanes, address)
    connections.open(40)
    connections.lose(3, "server")
    until_counts(least, connections.counts())
    connections.burst(40)
    assert uneven(connections.counts()) <= 3
    until_counts(least, connections.counts())
    shut(lanes)


STIRRED_SHIFT, LONG_AGO = 16, 1 << 20  # csrc/bpf: units of 65 us; 17 ms of them are recent


def stir(engine, quiet):
    """worker: how long ago something came or went in its lane, in those units."""
    now = time.monotonic_ns() >> STIRRED_SHIFT
    found = lanes_of_workers(engine)
    for number, ago in quiet.items():
        tally = engine.struct.kernel.tallies[found[number].number]
        tally.stirred = (now - ago) % (1 << 32)


def gets_the_next(connections):
    before = connections.counts()
    connections.open(1)
    return next(number for number, count in connections.counts().items() if count > before[number])


@pytest.mark.parametrize("youngest", [1, 2, 3, 4])
def test_of_equals_the_youngest_comes_first(least, held, youngest):
    """Who was given a connection a while ago, and has it still, may block."""
    lanes, address = lanes_of(least, 4)
    least.steer(1, 2, 3, 4)
    connections = held(lanes, address)
    clock = Clock(20)
    while True:
        while uneven(connections.counts()) or not connections.counts()[1]:
            connections.open(1)
        until_counts(least, connections.counts())
        began = time.monotonic()
        stir(least, {number: 0 if number == youngest else 100 for number in lanes})
        got = gets_the_next(connections)
        if time.monotonic() - began < 0.005:  # else the machine was too slow to tell
            break
        clock.left_ms()
    assert got == youngest
    until_counts(least, connections.counts())
    shut(lanes)


def test_of_equals_that_were_all_quiet_for_long_the_next_in_turn_comes_first(least, held):
    lanes, address = lanes_of(least, 4)
    least.steer(1, 2, 3, 4)
    connections = held(lanes, address)
    connections.open(4)
    until_counts(least, connections.counts())
    found = []
    for _ in range(8):
        quiet = LONG_AGO * (1 + len(found))
        stir(least, {number: quiet + number * LONG_AGO for number in lanes})
        got = gets_the_next(connections)
        for _ in range(2):  # three turns in all, so that the next is another's
            connections.lose(got, "server")
            until_counts(least, connections.counts())
            connections.open(1)  # that one, which has the least
        until_counts(least, dict.fromkeys(lanes, 1))
        found.append(got)
    assert set(found) == set(lanes)
    shut(lanes)


def test_coming_and_going_both_stir(least, held):
    lanes, address = lanes_of(least, 2)
    least.steer(1, 2)
    connections = held(lanes, address)

    def stirred():
        tallies = least.struct.kernel.tallies
        return {id: tallies[lane.number].stirred for id, lane in lanes_of_workers(least).items()}

    stir(least, dict.fromkeys(lanes, LONG_AGO))
    before = stirred()
    got = gets_the_next(connections)
    until_counts(least, connections.counts())
    changed = {number for number, at in stirred().items() if at != before[number]}
    assert changed == {got}
    stir(least, dict.fromkeys(lanes, LONG_AGO))
    before = stirred()
    connections.lose(got, "server")
    until_counts(least, connections.counts())
    assert {number for number, at in stirred().items() if at != before[number]} == {got}
    shut(lanes)


def test_short_connections_go_round(least):
    lanes, address = lanes_of(least, 4)
    least.steer(1, 2, 3, 4)
    total = dict.fromkeys(lanes, 0)
    for _ in range(40):
        for number, count in spread(lanes, address, 1).items():
            total[number] += count
        until_counts(least, dict.fromkeys(lanes, 0))
    assert uneven(total) <= 2
    shut(lanes)


def test_what_waits_in_a_lane_counts_and_goes_with_it(least):
    lanes, address = lanes_of(least, 2)
    least.steer(1)
    clients = [connect(address) for _ in range(5)]
    until_counts(least, {1: 5, 2: 0})
    least.steer(2)
    assert least.struct.groups.lanes[0].worker.id == 1
    tally = least.struct.kernel.tallies[least.struct.groups.lanes[0].number]
    assert least.ffi.addressof(tally).established == 5
    lanes.pop(1).close()
    least.bury(1)  # its queue is reset
    assert least.ffi.addressof(tally).established == 0
    for client in clients:
        client.close()
    shut(lanes)


@pytest.mark.parametrize("how", ["client first", "server first"])
def test_half_closed_counts_until_the_server_closes(least, how):
    lanes, address = lanes_of(least, 2)
    least.steer(1)
    client = connect(address)
    assert ready(lanes[1])
    connection, _ = lanes[1].accept()
    if how == "client first":
        client.shutdown(socket.SHUT_WR)
        assert ready(connection) and connection.recv(1) == b""
        assert counts(least) == {1: 1, 2: 0}
    connection.close()
    until_counts(least, {1: 0, 2: 0})  # though the other end is still open
    client.close()
    shut(lanes)


def test_a_number_that_connections_still_count_for_is_not_given_again(least, held):
    """An accepted connection may outlive its lane (another process has it)."""
    lanes, address = lanes_of(least, 2)
    least.steer(1)
    connections = held(lanes, address)
    connections.open(1)
    until_counts(least, {1: 1, 2: 0})
    number = next(
        lane.number
        for lane in least.struct.groups.lanes[0:3]
        if lane.worker and lane.worker.id == 1
    )
    lanes[1].close()
    least.bury(1)
    seen = set()
    for fresh in range(3, 4300):
        lane = least.lane(fresh, address)
        group = least.struct.groups
        seen.add(group.lanes[group.count - 1].number)
        lane.close()
        least.bury(fresh)
    assert number not in seen and len(seen) > 4000
    shut(lanes)


def raw_syn(source_port, address):
    """The TCP header of a SYN, without a socket behind it."""
    source, target = socket.inet_aton("127.0.0.1"), socket.inet_aton(address[0])
    packed = struct.pack("!HHIIHHHH", source_port, address[1], 7, 0, 5 << 12 | 2, 1024, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, 6, len(packed)) + packed
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packed[:16] + struct.pack("!H", ~total & 0xFFFF) + packed[18:]


def test_a_flood_of_syns_leaves_no_skew(least, held):
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    except PermissionError:
        pytest.skip("raw sockets need CAP_NET_RAW")
    lanes, address = lanes_of(least, 4)
    connections = held(lanes, address)
    least.steer(1, 2)
    connections.open(4)
    least.steer(1, 2, 3, 4)  # as after a scale-up: 3 and 4 have two less
    with raw:
        for port in range(20000, 24000):
            raw.sendto(raw_syn(port, address), (address[0], 0))
    until_counts(least, connections.counts())  # none of them was a connection
    assert connections.counts() == {1: 2, 2: 2, 3: 0, 4: 0}
    connections.open(20)
    until_counts(least, connections.counts())
    connections.open(20)
    clock = Clock(10)
    while uneven(connections.counts()) > 1:  # what the flood left goes away in two seconds
        connections.open(1)
        assert uneven(connections.counts()) <= 3  # and at the same time everywhere
        clock.left_ms()
    until_counts(least, connections.counts())
    shut(lanes)


def test_in_auto_who_stands_still_for_a_moment_keeps_its_part(balanced):
    """Its count alone passes it over; it is avoided when it does not only lack a CPU."""
    engine = balanced("auto")
    lanes, address = lanes_of(engine, 2)
    engine.steer(1, 2)
    clients = [connect(address) for _ in range(2)]
    pressure = lanes_of_workers(engine)[1].pressure
    accept_all(lanes[2])
    engine.wait_until(lambda _: pressure.congested)
    if pressure.still_us < engine.lib.RC_STARVED_US:  # the machine has not stood still
        assert [facts[1] for facts in engine.lanes()] == [True, True]
    engine.wait_until(lambda _: [facts[1] for facts in engine.lanes()] == [False, True])
    assert pressure.still_us >= engine.lib.RC_STARVED_US
    for client in clients:
        client.close()
    shut(lanes)
