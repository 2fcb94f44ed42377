"""Owns: what a bind of a UDP socket becomes, and which worker a flow goes to."""

import errno
import os
import random
import socket
import struct
import subprocess

import pytest
from ports import free_port

from ..harness import needs_ipv6, ready
from ..udpcase import REUSEADDR, REUSEPORT, ask, datagram, group_of

# ---- bind ----------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [(), (REUSEPORT,)])
@pytest.mark.parametrize("theirs", [(), (REUSEPORT,), (REUSEADDR, REUSEPORT)])
def test_a_foreign_owner_is_address_in_use(engine, datagrams, ours, theirs):
    foreign, sock = datagrams(socket.AF_INET, *theirs), datagrams(socket.AF_INET, *ours)
    foreign.bind(("127.0.0.1", 0))
    with pytest.raises(OSError) as caught:
        engine.bind(engine.worker(1), sock, foreign.getsockname())
    assert caught.value.errno == errno.EADDRINUSE
    assert bool(sock.getsockopt(socket.SOL_SOCKET, REUSEPORT)) == (REUSEPORT in ours)
    assert engine.lanes() == []


def test_a_second_engine_is_address_in_use(new_engine, datagrams, address):
    first, second = new_engine(), new_engine()
    group_of(first, datagrams, address, 1)
    with pytest.raises(OSError) as caught:
        group_of(second, datagrams, address, 1)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("options", [(), (REUSEADDR,), (REUSEPORT,)])
def test_a_client_s_bind_is_left_alone(engine, datagrams, options, fds):
    worker, before = engine.worker(1), fds()
    sock = datagrams(socket.AF_INET, *options)
    engine.bind(worker, sock, ("127.0.0.1", 0))
    assert bool(sock.getsockopt(socket.SOL_SOCKET, REUSEPORT)) == (REUSEPORT in options)
    assert engine.lanes() == []
    assert len(fds()) == len(before) + 1  # the socket itself


@pytest.mark.parametrize("host", ["224.0.0.251", "255.255.255.255"])
def test_an_address_for_many_is_left_alone(engine, datagrams, host):
    sock = datagrams(socket.AF_INET, REUSEADDR)
    assert engine.bind(engine.worker(1), sock, (host, free_port()))[0] == host
    assert engine.lanes() == []


def test_tcp_and_udp_on_one_port_are_two_groups(engine, datagrams):
    lane = engine.lane(1)
    address = lane.getsockname()
    sock = datagrams()
    worker = engine.lib.rc_find(engine.struct, 1)
    assert engine.bind(worker, sock, address) == address
    names = sorted(one[4] for one in engine.lanes())
    assert names == [f"127.0.0.1:{address[1]}", f"udp:127.0.0.1:{address[1]}"]
    lane.close()


def test_multicast_comes_to_each_worker_that_joined(engine, datagrams):
    port, group = free_port(host="0.0.0.0"), "239.255.77.1"
    lanes = group_of(engine, datagrams, ("0.0.0.0", port), 2)
    engine.steer(1, 2)
    member = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
    for sock in lanes.values():
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    sender = datagrams()
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    sender.sendto(b"all", (group, port))
    for sock in lanes.values():
        assert ready(sock)
        assert sock.recv(9) == b"all"


# ---- flows ---------------------------------------------------------------------------


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_flows_spread_and_stay(engine, datagrams, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = (host, free_port(family, host))
    lanes = group_of(engine, datagrams, address, 4)
    engine.steer(1, 2, 3, 4)
    clients = [datagrams(family) for _ in range(200)]
    first = ask(clients, lanes, address)
    assert min(first.count(number) for number in lanes) >= 20
    assert ask(clients, lanes, address) == first


def test_an_ipv4_flow_stays_on_a_dual_stack_lane(engine, datagrams):
    port = free_port(socket.AF_INET6, "::")
    lanes = group_of(engine, datagrams, ("::", port), 4)
    engine.steer(1, 2, 3, 4)
    clients = [datagrams() for _ in range(100)]
    first = ask(clients, lanes, ("127.0.0.1", port))
    assert len(set(first)) == 4
    assert ask(clients, lanes, ("127.0.0.1", port)) == first


def test_only_the_flows_of_a_dead_worker_move_and_come_back(engine, datagrams, address):
    lanes = group_of(engine, datagrams, address, 4)
    engine.steer(1, 2, 3, 4)
    clients = [datagrams() for _ in range(200)]
    first = ask(clients, lanes, address)
    dead = engine.lib.rc_find(engine.struct, 2)
    dead.dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    second = ask(clients, lanes, address)
    assert all(now == was for was, now in zip(first, second, strict=True) if was != 2)
    assert 2 not in second
    # The successor takes the dead one's lane, and so its flows.
    heir, sock = engine.worker(5, 2), datagrams()
    engine.place(5, slot=2)
    assert engine.bind(heir, sock, address) == address
    engine.steer(1, 3, 4, 5)
    lanes[5] = sock
    del lanes[2]
    third = ask(clients, lanes, address)
    assert [2 if number == 5 else number for number in third] == first


def test_a_datagram_in_a_dead_worker_s_queue_is_read_by_its_successor(engine, datagrams, address):
    group_of(engine, datagrams, address, 1)
    engine.steer(1)
    datagrams().sendto(b"kept", address)
    engine.lib.rc_find(engine.struct, 1).dead = True
    engine.lib.rc_lanes_resteer(engine.struct)
    sock = datagrams()
    engine.bind(engine.worker(2, 1), sock, address)
    assert ready(sock) and sock.recv(9) == b"kept"
    assert sock.getblocking() is False and os.get_inheritable(sock.fileno()) is False
    engine.steer(2)
    engine.bury(1)
    assert [one[0] for one in engine.lanes()] == [2]


def test_a_reload_moves_all_flows_at_once(engine, datagrams, address):
    old = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2, 3)
    clients = [datagrams() for _ in range(60)]
    ask(clients, old, address)
    new = group_of(engine, datagrams, address, 3, first=4)
    assert set(ask(clients, {**old, **new}, address)) <= {1, 2, 3}
    engine.steer(4, 5, 6)
    assert set(ask(clients, {**old, **new}, address)) == {4, 5, 6}
    for number in (1, 2, 3):
        old[number].close()
        engine.bury(number)
        assert set(ask(clients, new, address)) == {4, 5, 6}


def test_removals_in_any_order_leave_no_flow_in_a_wrong_lane(engine, datagrams, address):
    lanes = group_of(engine, datagrams, address, 8)
    clients = [datagrams() for _ in range(100)]
    numbers = list(lanes)
    random.Random(7).shuffle(numbers)
    while len(numbers) > 1:
        engine.steer(*numbers[1:])
        gone = numbers.pop(0)
        assert gone not in ask(clients, lanes, address)
        lanes.pop(gone).close()
        engine.bury(gone)
        assert set(ask(clients, lanes, address)) <= set(numbers)


def test_a_port_closed_and_opened_again_leaves_one_lane(engine, datagrams, address, fds):
    worker, before = engine.worker(1), None
    # Somebody who holds nothing is the worker: this process has the master's duplicates.
    leader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    worker.pid = leader.pid
    for _ in range(5):
        with datagram() as sock:
            assert engine.bind(worker, sock, address) == address
            now = len(fds())
            assert before in (None, now)
            before = now
    assert len(engine.lanes()) == 1
    worker.pid = 0
    leader.communicate()


def test_a_socket_connected_to_one_peer_gets_that_peer_only(engine, datagrams, address):
    lanes = group_of(engine, datagrams, address, 1)
    engine.steer(1)
    peer, others = datagrams(), [datagrams() for _ in range(40)]
    peer.bind(("127.0.0.1", 0))
    own = datagrams(socket.AF_INET, REUSEPORT)
    engine.bind(engine.lib.rc_find(engine.struct, 1), own, address)
    own.connect(peer.getsockname())
    engine.steer(1)
    lanes["own"] = own
    assert ask([peer], lanes, address) == ["own"]
    assert set(ask(others, lanes, address)) == {1}


def test_no_duplicate_is_kept_of_a_socket_for_one_peer(engine, datagrams, address, fds):
    lanes = group_of(engine, datagrams, address, 1)
    engine.steer(1)
    peer, others = datagrams(), [datagrams() for _ in range(20)]
    peer.bind(("127.0.0.1", 0))
    own, before = datagrams(socket.AF_INET, REUSEPORT), len(fds())
    engine.bind(engine.lib.rc_find(engine.struct, 1), own, address)
    assert len(fds()) == before
    both = {**lanes, "own": own}
    assert set(ask(others, both, address)) == {1}  # it is not steered to
    own.connect(peer.getsockname())
    assert ask([peer], both, address) == ["own"]
    own.close()
    assert ask([peer], lanes, address) == [1]


@pytest.mark.parametrize("connected", [0, 1, 2, 3])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_lane_behind_further_sockets_is_steered_to(engine, datagrams, host, connected):
    port = free_port()
    address, to = (host, port), ("127.0.0.1", port)
    lanes = group_of(engine, datagrams, address, 1)
    peer, others = datagrams(), [datagrams() for _ in range(60)]
    peer.bind(("127.0.0.1", 0))
    further = [datagrams(socket.AF_INET, REUSEPORT) for _ in range(3)]
    for sock in further:
        engine.bind(engine.lib.rc_find(engine.struct, 1), sock, address)
    for sock in further[:connected]:
        sock.connect(peer.getsockname())
    lanes |= group_of(engine, datagrams, address, 1, first=2)
    lanes |= {f"further {at}": sock for at, sock in enumerate(further)}
    assert len(engine.lanes()) == 5 - connected
    engine.steer(2)
    assert set(ask(others, lanes, to)) == {2}
    engine.steer(1)
    assert set(ask(others, lanes, to)) == {1, *(f"further {at}" for at in range(connected, 3))}


def test_a_second_socket_without_an_option_is_refused_as_ever(engine, datagrams, address):
    group_of(engine, datagrams, address, 1)
    with pytest.raises(OSError) as caught:
        sock = datagrams()
        engine.bind(engine.lib.rc_find(engine.struct, 1), sock, address)
        sock.bind(address)  # it was let pass
    assert caught.value.errno == errno.EADDRINUSE


# ---- the program ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 16, 33, 256])
def test_a_program_fits_and_leaves_nobody_out_while_there_are_few(ffi, lib, count):
    choices = ffi.new("struct rc_choice[]", count)
    for at in range(count):
        choices[at].index, choices[at].slot, choices[at].weight = at, at + 1, 1
    out = ffi.new("struct sock_filter[]", 4096)
    length = lib.rc_udp_build(choices, count, out, 4096)
    assert 0 < length < 1600
    returned = {one.k for one in out[0:length] if one.code == 0x06}
    assert returned <= set(range(count))
    assert count > 16 or len(returned) == count
    assert lib.rc_udp_build(choices, count, out, length - 1) == -errno.E2BIG


def test_the_lanes_of_one_slot_share_its_part(ffi, lib):
    choices = ffi.new("struct rc_choice[]", 3)
    for at, slot in enumerate((1, 1, 2)):
        choices[at].index, choices[at].slot, choices[at].weight = at, slot, 1
    out = ffi.new("struct sock_filter[]", 4096)
    length = lib.rc_udp_build(choices, 3, out, 4096)
    assert {one.k for one in out[0:length] if one.code == 0x06} == {0, 1, 2}


# ---- faults --------------------------------------------------------------------------

CALLS = ("fcntl", "calloc", "realloc", "setsockopt", "bind", "getsockname")


@pytest.mark.parametrize("name", CALLS)
def test_whatever_fails_the_bind_says_so_and_nothing_is_left(
    engine, datagrams, address, fault, fds, name
):
    lanes = group_of(engine, datagrams, address, 1)
    worker = engine.worker(2)
    for n in range(1, 20):
        sock, before = datagrams(), fds()
        fault.arm(n, errno.ENOMEM, name)
        try:
            engine.bind(worker, sock, address)
        except OSError as error:
            assert error.errno == errno.ENOMEM
            assert fault.disarm() == 1
            assert fds() == before
            assert [one[0] for one in engine.lanes()] == [1]
        else:
            # Where only the steering failed: the next one sets it right.
            fault.disarm()
            break
    else:
        raise AssertionError(f"{name} never ended to fail")
    engine.steer(1, 2)
    lanes[2] = sock
    assert set(ask([datagrams() for _ in range(60)], lanes, address)) == {1, 2}


def test_a_successor_may_join_what_its_predecessor_joined(engine, datagrams):
    port = free_port(host="0.0.0.0")
    member = struct.pack("4s4s", socket.inet_aton("239.255.77.2"), socket.inet_aton("127.0.0.1"))
    old = group_of(engine, datagrams, ("0.0.0.0", port), 1)[1]
    old.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    kill = engine.lib.rc_find(engine.struct, 1)
    kill.dead = True
    new = datagrams()
    engine.bind(engine.worker(2, 1), new, ("0.0.0.0", port))
    assert os.fstat(new.fileno()).st_ino == os.fstat(old.fileno()).st_ino
    new.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)


def test_no_flow_moves_while_lanes_of_the_old_generation_go(engine, datagrams, address):
    old = group_of(engine, datagrams, address, 3)
    engine.steer(1, 2, 3)
    new = group_of(engine, datagrams, address, 3, first=4)
    engine.steer(4, 5, 6)
    clients = [datagrams() for _ in range(60)]
    first = ask(clients, new, address)
    for number, sock in old.items():
        sock.close()
        worker = engine.lib.rc_find(engine.struct, number)
        worker.dead = True
        assert engine.lib.rc_worker_release(engine.pointer, number) == 0
        assert ask(clients, new, address) == first
    # Their places are the next generation's, and so they do not pile up.
    third = group_of(engine, datagrams, address, 3, first=7)
    assert engine.struct.groups.count == 6
    engine.steer(7, 8, 9)
    assert set(ask(clients, {**new, **third}, address)) == {7, 8, 9}
    for number in (4, 5, 6):
        new.pop(number).close()
        engine.bury(number)
    assert engine.struct.groups.count == 3
    assert set(ask(clients, third, address)) == {7, 8, 9}
