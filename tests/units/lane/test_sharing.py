"""Owns: lanes that the workers of a party share."""

import errno
import os
import socket

import pytest

from ..harness import Engine, accept_all, connect, queue_of, ready, spread, start_connect, stream

FAULTS = [errno.ENOMEM, errno.EMFILE]


class Party:
    """Workers of an engine that share: their sockets by number."""

    def __init__(self, engine):
        self.engine, self.socks, self.address = engine, {}, ("127.0.0.1", 0)
        engine.balance("shared")

    def join(self, number, party=1, heir_of=0, blocking=False, backlog=16):
        engine, worker = self.engine, self.engine.worker(number, heir_of)
        engine.place(number, number, party)
        sock = self.socks[number] = stream(socket.AF_INET, socket.SO_REUSEADDR)
        sock.setblocking(blocking)
        self.address = engine.bind(worker, sock, self.address)
        assert engine.listen(worker, sock, backlog)
        return sock

    def die(self, *numbers):
        for number in numbers:
            self.engine.lib.rc_find(self.engine.struct, number).dead = True
        self.engine.lib.rc_lanes_resteer(self.engine.struct)
        for number in numbers:
            self.socks[number].close()

    def release(self, number):
        assert self.engine.lib.rc_worker_release(self.engine.pointer, number) == 0

    def queued(self, number):
        return self.engine.lib.rc_queued(self.engine.pointer, number)

    def holders(self):
        facts = self.engine.ffi.new("struct rc_lane_facts[]", 64)
        count = self.engine.lib.rc_lanes(self.engine.pointer, facts, 64)
        return [one.holders for one in facts[0:count]]

    def close(self):
        for sock in self.socks.values():
            sock.close()


@pytest.fixture
def party(engine):
    party = Party(engine)
    yield party
    party.close()


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def test_a_party_has_one_lane(party):
    socks = [party.join(number) for number in (1, 2, 3)]
    assert len({inode(sock) for sock in socks}) == 1
    assert party.holders() == [3]
    party.engine.steer(1, 2, 3)
    clients = [connect(party.address) for _ in range(9)]
    for sock in socks:  # whoever asks gets the next
        for _ in range(3):
            sock.accept()[0].close()
    assert queue_of(socks[0]) == 0
    for client in clients:
        client.close()


def test_another_party_has_another_lane_and_the_cutover_is_whole(party):
    old, new = party.join(1), party.join(3, party=2)
    party.join(2)
    party.join(4, party=2)
    assert inode(old) != inode(new) and sorted(party.holders()) == [2, 2]
    lanes = {"old": old, "new": new}
    for live, name in (((1, 2), "old"), ((3, 4), "new"), ((2,), "old")):
        party.engine.steer(*live)
        assert spread(lanes, party.address, 30)[name] == 30


def test_a_lane_gets_the_part_of_all_that_accept_from_it(party):
    lanes = {"old": party.join(1), "new": party.join(4, party=2)}
    party.join(2)
    party.join(3)
    party.engine.steer(1, 2, 3, 4)
    counts = spread(lanes, party.address, 400)
    assert abs(counts["old"] - 300) <= 6 * (400 * 0.75 * 0.25) ** 0.5


def test_the_lane_outlives_all_but_the_last(party):
    """A worker goes: what waits is the others' to serve, and nothing is reset."""
    for number in (1, 2, 3):
        party.join(number)
    party.engine.steer(1, 2, 3)
    clients = [connect(party.address) for _ in range(5)]
    party.die(1)  # the first, whose own socket the lane was
    assert [party.queued(number) for number in (1, 2, 3)] == [0, 0, 0]
    party.release(1)
    party.engine.steer(2, 3)
    assert queue_of(party.socks[2]) == 5 and party.holders() == [2]
    clients.append(connect(party.address))
    party.die(3)
    party.release(3)
    assert len(accept_all(party.socks[2])) == 6
    for client in clients:
        client.close()
    party.die(2)
    party.release(2)
    assert party.engine.lanes() == []


def test_a_respawn_joins_and_gets_what_waited(party):
    party.join(1)
    party.join(2)
    party.engine.steer(1, 2)
    clients = [connect(party.address) for _ in range(4)]
    party.die(1, 2)
    clients += [connect(party.address) for _ in range(3)]  # an orphan still takes them
    assert [party.queued(1), party.queued(2)] in ([7, 0], [0, 7])
    heir = party.join(3, heir_of=1)
    assert party.queued(1) == party.queued(2) == 0
    party.release(1)
    party.release(2)
    party.engine.steer(3)
    assert len(accept_all(heir)) == 7 and party.holders() == [1]
    for client in clients:
        client.close()


def test_a_relief_worker_adopts_what_the_dead_of_a_party_left(party):
    party.join(1)
    party.join(2)
    party.engine.steer(1, 2)
    clients = [connect(party.address) for _ in range(4)]
    new = party.join(3, party=2)
    party.engine.steer(3)
    assert [party.queued(1), party.queued(2)] == [4, 4]  # nobody is steered to it: it is theirs
    party.die(1)
    assert [party.queued(1), party.queued(2)] == [0, 4]
    party.die(2)
    assert sorted([party.queued(1), party.queued(2)]) == [0, 4]
    holder = 1 if party.queued(1) else 2
    party.release(3 - holder)
    assert party.queued(holder) == 4
    relief = party.join(4, party=0, heir_of=holder)
    assert inode(relief) != inode(new) and party.queued(holder) == 0 and party.queued(4) == 4
    party.release(holder)
    assert len(accept_all(relief)) == 4
    assert spread({"new": new, "relief": relief}, party.address, 20) == {"new": 20, "relief": 0}
    for client in clients:
        client.close()


def test_a_relief_worker_does_not_take_a_lane_that_others_use(party):
    party.join(1)
    party.join(2)
    party.engine.steer(2)
    party.die(1)
    relief = party.join(3, party=0, heir_of=1)
    assert inode(relief) != inode(party.socks[2])


# ---- what belongs to the description ------------------------------------------------------


def test_o_nonblock_stays_as_those_who_use_the_lane_have_set_it(party):
    """A joiner that sets it only after its listen must not, until then, make the
    others' accept block."""
    first = party.join(1)
    party.join(2, blocking=True)
    assert os.get_blocking(first.fileno()) is False
    party.engine.steer(1, 2)
    assert accept_all(first) == []  # would hang else


def test_blocking_servers_share_a_blocking_lane(party):
    first = party.join(1, blocking=True)
    party.join(2, blocking=False)
    assert os.get_blocking(first.fileno()) is True


def test_the_heir_of_all_sets_it_as_it_wants(party):
    party.join(1, blocking=True)
    party.engine.steer(1)
    party.die(1)
    heir = party.join(2, heir_of=1)
    assert os.get_blocking(heir.fileno()) is False


def test_the_backlog_never_shrinks(party):
    party.join(1, backlog=2000)
    wide = party.engine.lanes()[0][3]
    for number, backlog in ((2, 5), (3, 0), (4, 100)):
        party.join(number, backlog=backlog)
        assert party.engine.lanes()[0][3] == wide
    with open("/proc/sys/net/core/somaxconn") as file:
        most = int(file.read())
    party.join(5, backlog=most)
    assert party.engine.lanes()[0][3] == max(wide, most)


# ---- a worker that shuts its listener down ---------------------------------------------------


def test_who_shuts_it_down_does_not_take_it_from_the_others(party):
    for number in (1, 2):
        party.join(number)
    other = party.join(3, party=2)
    party.engine.steer(1, 2)
    party.socks[1].shutdown(socket.SHUT_RDWR)
    party.engine.wait()
    party.socks[1].close()
    lanes = {"shared": party.socks[2], "other": other}
    assert spread(lanes, party.address, 30) == {"shared": 30, "other": 0}
    party.engine.steer(3)  # indices are right
    assert spread(lanes, party.address, 30) == {"shared": 0, "other": 30}
    party.engine.steer(2, 3)
    assert len([n for n in spread(lanes, party.address, 60).values() if n]) == 2


@pytest.mark.parametrize("given", [False, True])
def test_it_can_be_shut_down_again_and_again(party, given):
    """A socket that was bound to port 0 forgets the number."""
    if given:
        with stream(socket.AF_INET, socket.SO_REUSEADDR) as holder:
            holder.bind(party.address)
            party.address = holder.getsockname()
    for number in range(1, 6):
        party.join(number)
    party.engine.steer(*range(1, 6))
    for number in range(1, 5):
        party.socks[number].shutdown(socket.SHUT_RDWR)
        party.engine.wait()
        party.socks[number].close()
    assert spread({5: party.socks[5]}, party.address, 20) == {5: 20}


def test_the_last_that_shuts_it_down_ends_it(party):
    sock = party.join(1)
    party.engine.steer(1)
    sock.shutdown(socket.SHUT_RDWR)
    party.engine.wait()
    assert party.engine.lanes() == []
    client, error = start_connect(party.address)
    if error == errno.EINPROGRESS:
        assert ready(client, 4)
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert error == errno.ECONNREFUSED
    client.close()


# ---- errors --------------------------------------------------------------------------------


def test_a_joiner_that_died_before_its_answer_leaves(ffi, lib, party):
    party.join(1)
    worker = party.engine.worker(2)
    party.engine.place(2, 2, 1)
    with stream(socket.AF_INET, socket.SO_REUSEADDR) as sock:
        party.engine.bind(worker, sock, party.address)
        answer = party.engine._ask(lib.rc_lanes_listen, worker, sock)
        assert party.holders() == [2]
        lib.rc_lanes_refused(answer)
        assert party.holders() == [1]


@pytest.mark.parametrize("error", FAULTS)
def test_a_join_that_fails_changes_nothing(ffi, lib, fault, error):
    fired, n = True, 0
    while fired:
        n += 1
        with Engine(ffi, lib) as engine:
            party = Party(engine)
            party.join(1)
            engine.steer(1)
            worker = engine.worker(2)
            engine.place(2, 2, 1)
            with stream(socket.AF_INET, socket.SO_REUSEADDR) as sock:
                engine.bind(worker, sock, party.address)
                fault.arm(n, error)
                try:
                    engine.listen(worker, sock)
                    joined = True
                except OSError:
                    joined = False
                fired = bool(fault.disarm())
                assert joined or fired
                assert party.holders() in ([1 + joined], [1, 1])
                socks = {1: party.socks[1], 2: sock} if party.holders() == [1, 1] else party.socks
                engine.steer(1)
                assert spread(socks, party.address, 5)[1] == 5
            party.close()
    assert n > 1


def test_a_slot_out_of_reason_is_refused(engine):
    engine.worker(1)
    for number, slot, wanted in ((1, 1 << 16, errno.EINVAL), (7, 0, errno.ESRCH)):
        with pytest.raises(OSError) as caught:
            engine.place(number, slot)
        assert caught.value.errno == wanted
