"""Owns: dispatch (csrc/dispatch/dispatch.c, pass.c, front.c, opens.c): whose turn it is,
back-pressure, and that nothing is lost when a call fails.

The workers have no processes: the test listens for them, with or without the mark of
those who can receive, and accepts what they were given.
"""

import errno
import os
import select
import socket

import pytest

from ..harness import Engine, check, connect, needs_ipv6, queue_of, ready, start_connect, stream

MARK = 0x5263 << 16
ROUND_ROBIN, LEAST = "RC_BALANCE_ROUND_ROBIN", "RC_BALANCE_LEAST_CONNECTIONS"


def received(engine, sock):
    """(connection, client's port) that waits at the worker's end of its pair, or None."""
    hand = engine.ffi.new("struct rc_accepted *")
    error = 0
    while not error and hand.fd <= 0:  # a message without a descriptor is a nudge
        error = engine.lib.rc_pass_receive(sock.fileno(), hand)
    if error == -errno.EAGAIN:
        return None
    check(error, "rc_pass_receive")
    return socket.socket(fileno=hand.fd), socket.ntohs(hand.peer.sin6_port)


class Dispatch:
    def __init__(self, engine, policy=ROUND_ROBIN, workers=4, passes=True, family=socket.AF_INET):
        self.engine, self.lib, self.ffi = engine, engine.lib, engine.ffi
        check(self.lib.rc_balance(engine.pointer, getattr(self.lib, policy)), "rc_balance")
        check(self.lib.rc_balance_dispatch(engine.pointer), "rc_balance_dispatch")
        self.host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.address, self.socks, self.passes = (self.host, 0), {}, passes
        for number in range(1, workers + 1):
            self.join(number, family)
        engine.steer(*self.socks)

    def join(self, number, family=socket.AF_INET):
        worker, sock = self.engine.worker(number), stream(family, socket.SO_REUSEADDR)
        self.address = self.engine.bind(worker, sock, self.address)
        mark = MARK if self.passes else 0
        assert self.engine.listen(worker, sock, mark | 16)
        self.socks[number] = sock

    def turn(self, ms=0):
        self.engine.wait(ms)

    def receive(self, number):
        """The client's port of what this worker was given, or None. Holds nothing."""
        found = received(self.engine, self.socks[number])
        if found is None:
            return None
        with found[0] as connection:
            assert connection.family == self.socks[number].family
        return found[1]

    def receive_all(self):
        """{worker: ports} of one look at each."""
        found = {number: self.receive(number) for number in self.socks}
        return {number: port for number, port in found.items() if port}

    def serve(self, clients, rounds=2000):
        """Turn and receive until each of these clients has been given to somebody."""
        given, missing = {}, {client.getsockname()[1] for client in clients}
        while missing and rounds:
            rounds -= 1
            self.turn(1)
            for number, port in self.receive_all().items():
                given.setdefault(number, []).append(port)
                missing.discard(port)
        assert not missing, f"lost: {missing}"
        return {number: len(ports) for number, ports in given.items()}

    def waiting(self):
        return sum(queued for worker, _, queued, *_ in self.engine.lanes() if worker == 0)

    def connect(self, count):
        return [connect(self.address) for _ in range(count)]


def lane_of(engine, number):
    group = engine.struct.groups
    lanes = [group.lanes[at] for at in range(group.count)]
    return next(lane for lane in lanes if lane.worker and lane.worker.id == number)


def front_of(engine):
    return socket.socket(fileno=os.dup(engine.struct.groups.front.source.fd))


def test_round_robin_is_exact(engine):
    dispatch = Dispatch(engine)
    assert dispatch.serve(dispatch.connect(40)) == {1: 10, 2: 10, 3: 10, 4: 10}


def test_who_has_not_taken_gets_no_more(engine):
    """The rest waits in the kernel, not in the master."""
    dispatch = Dispatch(engine)
    clients = dispatch.connect(10)
    dispatch.turn()
    assert dispatch.waiting() == 6
    assert len(dispatch.receive_all()) == 4
    assert dispatch.receive_all() == {}
    assert sum(dispatch.serve(clients[4:]).values()) == 6


def test_nobody_is_live(engine):
    """Then nothing is taken; who was live last serves what waits."""
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(4)
    engine.steer()
    late, error = start_connect(dispatch.address)
    assert error == errno.EINPROGRESS and not ready(late, select.POLLOUT, 50)
    assert dispatch.serve(clients) == {1: 2, 2: 2}
    engine.steer(1)
    assert ready(late, select.POLLOUT, 5000)


def test_a_cutover(engine):
    """From it on the new ones get all, also what the old ones had not taken."""
    dispatch = Dispatch(engine, workers=4)
    engine.steer(1, 2)
    clients = dispatch.connect(2)
    dispatch.turn()
    engine.steer(3, 4)
    clients += dispatch.connect(4)
    assert dispatch.serve(clients) == {3: 3, 4: 3}


def test_a_crash_loses_nothing(engine):
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(6)
    dispatch.turn()  # one each
    dispatch.socks.pop(1).close()
    engine.bury(1)
    assert dispatch.serve(clients) == {2: 6}


def test_a_late_one_is_passed_over_and_catches_up(engine):
    dispatch = Dispatch(engine, workers=2)
    clients, hung = dispatch.connect(20), dispatch.socks.pop(1)
    assert dispatch.serve(clients) == {2: 20}
    dispatch.socks[1] = hung
    assert dispatch.receive(1) is None  # only the question whether it is there
    more = dispatch.serve(dispatch.connect(20))
    assert more[1] == 20, more


@needs_ipv6
def test_ipv6(engine):
    dispatch = Dispatch(engine, family=socket.AF_INET6, workers=2)
    assert dispatch.serve(dispatch.connect(6)) == {1: 3, 2: 3}


def test_the_front_has_the_listener_s_options(engine):
    assert engine.lib.rc_balance(engine.pointer, engine.lib.RC_BALANCE_ROUND_ROBIN) == 0
    assert engine.lib.rc_balance_dispatch(engine.pointer) == 0
    worker, sock = engine.worker(1), stream(socket.AF_INET, socket.SO_REUSEADDR)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    engine.bind(worker, sock)
    sndbuf = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert engine.listen(worker, sock, MARK | 2000)
    with front_of(engine) as front:
        assert front.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert front.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert front.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == buffer
        assert front.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == sndbuf


# ---- least connections ---------------------------------------------------------------


class Held(Dispatch):
    """Keeps what it receives, by worker."""

    def __init__(self, engine, **more):
        super().__init__(engine, LEAST, **more)
        self.held = {number: [] for number in self.socks}

    def give(self, count):
        """One client at a time, each with its connection held."""
        for _ in range(count):
            client = connect(self.address)
            for _ in range(2000):
                self.turn(1)
                found = ((n, received(self.engine, sock)) for n, sock in self.socks.items())
                taker, got = next((one for one in found if one[1]), (None, None))
                if taker:
                    break
            self.held[taker].append((client, got[0]))

    def counts(self):
        return [len(one) for one in self.held.values()]

    def close(self, number):
        for client, connection in self.held[number]:
            client.close()
            connection.close()
        self.held[number] = []


def test_least_connections_levels(engine, lib):
    held = Held(engine)
    held.give(40)
    assert held.counts() == [10, 10, 10, 10]
    held.close(1)
    held.close(3)
    for number in (1, 3):
        engine.wait_until(lambda _, n=number: lib.rc_find(engine.struct, n).open == 0)
    held.give(20)
    assert max(held.counts()) - min(held.counts()) <= 1, held.counts()


def test_the_kernel_tells_of_what_is_closed(engine, lib):
    """Without any choice, which would look."""
    held = Held(engine, workers=2)
    held.give(20)
    held.close(2)
    engine.wait_until(lambda _: lib.rc_find(engine.struct, 2).open == 0)
    held.give(10)
    assert held.counts() == [10, 10]


def test_a_flood_of_resets_leaves_no_skew(engine, lib):
    held = Held(engine, workers=2)
    for _ in range(200):
        connect(held.address).close()  # with RST
    engine.wait_until(lambda _: held.receive_all() == {} and held.waiting() == 0, 20)
    engine.wait_until(
        lambda _: lib.rc_find(engine.struct, 1).open + lib.rc_find(engine.struct, 2).open == 0, 20
    )
    held.give(8)
    assert held.counts() == [4, 4]


def test_lost_messages_are_made_good(engine, lib, fault):
    held = Held(engine, workers=2)
    held.give(8)
    fault.arm(1, errno.ENOBUFS, "recv")
    held.close(1)
    engine.wait_until(lambda _: fault.last == "recv" and lib.rc_find(engine.struct, 1).open == 0)
    assert lib.rc_find(engine.struct, 2).open == 4


# ---- who cannot be passed any --------------------------------------------------------


def test_a_group_of_both_kinds_divides_by_chance(engine):
    """The front stands for those that can; each of the others has its own lane."""
    dispatch = Dispatch(engine, workers=3)
    dispatch.passes = False
    dispatch.join(4)
    engine.steer(1, 2, 3, 4)
    clients = dispatch.connect(400)
    alone = dispatch.socks.pop(4)
    accepted = set()
    while ready(alone, ms=0):
        accepted.add(alone.accept()[1][1])
    # A fourth of 400: with fewer than 50 or more than 150 chance would have to be 5.7 sigma off.
    assert 50 < len(accepted) < 150
    given = dispatch.serve([one for one in clients if one.getsockname()[1] not in accepted])
    assert max(given.values()) - min(given.values()) <= 1


@pytest.mark.parametrize("passes", [True, False])
def test_one_generation_gives_way_to_one_of_the_other_kind(engine, passes):
    dispatch = Dispatch(engine, workers=2, passes=passes)
    old, dispatch.socks = dispatch.socks, {}
    dispatch.passes = not passes
    for number in (3, 4):
        dispatch.join(number)
    engine.steer(3, 4)
    clients = dispatch.connect(20)
    dispatch.turn()
    if not passes:
        assert sum(dispatch.serve(clients).values()) == 20
    for sock in (old if passes else dispatch.socks).values():
        assert received(engine, sock) is None
    if passes:
        assert sum(queue_of(sock) for sock in dispatch.socks.values()) == 20


def test_what_waits_when_the_new_code_cannot_be_passed_any_is_the_old_one_s(engine, lib):
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(12)
    dispatch.turn()
    old, dispatch.passes = dict(dispatch.socks), False
    dispatch.join(3)
    engine.steer(3)
    dispatch.socks = old
    assert [lib.rc_queued(engine.pointer, number) for number in (1, 2)] == [11, 11]
    assert sum(dispatch.serve(clients).values()) == 12
    assert [lib.rc_queued(engine.pointer, number) for number in (1, 2)] == [0, 0]


@pytest.mark.parametrize("steered", [True, False])
def test_a_generation_that_has_died_is_not_replaced_by_the_one_before(engine, lib, steered):
    dispatch = Dispatch(engine, workers=2)
    old = dict(dispatch.socks)
    dispatch.join(3)
    engine.steer(3)
    lib.rc_find(engine.struct, 3).dead = True
    if not steered:
        engine.steer()
    clients = [start_connect(dispatch.address)[0] for _ in range(4)]
    dispatch.turn(20)
    dispatch.socks = old
    assert dispatch.receive_all() == {}
    for client in clients:
        client.close()


def test_nobody_counts_for_who_accepts_for_itself(engine, lib, ffi):
    dispatch, counts = Dispatch(engine, workers=1), ffi.new("struct rc_counts *")
    dispatch.passes = False
    dispatch.join(2)
    for number, accepted in (1, 0), (2, -1):
        check(lib.rc_counts(engine.pointer, number, counts), "rc_counts")
        assert counts.accepted == accepted


def test_who_listens_again_without_the_mark_accepts_for_itself(engine):
    """A program that was passed connections execs one that cannot be."""
    dispatch = Dispatch(engine, workers=1)
    worker, sock = lane_of(engine, 1).worker, dispatch.socks[1]
    assert engine.listen(worker, sock, 16)
    clients = dispatch.connect(3)
    dispatch.turn()
    assert sorted(sock.accept()[1][1] for _ in clients) == sorted(
        client.getsockname()[1] for client in clients
    )


# ---- failures ------------------------------------------------------------------------
# ---- failures ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_accept_fails_for_a_while(engine, fault, error):
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(6)
    fault.arm(1, error, "accept4")
    dispatch.turn()
    assert fault.last == "accept4"
    assert dispatch.serve(clients) == {1: 3, 2: 3}


@pytest.mark.parametrize("error", [errno.ENOMEM, errno.ETOOMANYREFS])
def test_what_cannot_be_passed_goes_to_another(engine, fault, error):
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(4)
    fault.arm(1, error, "sendmsg")
    assert sum(dispatch.serve(clients).values()) == 4
    assert fault.last == "sendmsg"


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ETOOMANYREFS])
def test_what_cannot_be_passed_for_a_while(engine, fault, error):
    """To the only one there is: nobody else frees it."""
    dispatch = Dispatch(engine, workers=1)
    clients = dispatch.connect(3)
    fault.arm(1, error, "sendmsg")
    assert dispatch.serve(clients) == {1: 3}
    assert fault.last == "sendmsg"


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_RDWR])
@pytest.mark.parametrize("offered", [True, False])
def test_a_worker_that_shuts_its_end_down(engine, lib, how, offered):
    """As with a listening socket: its lane goes, and what it was given with it goes to
    others; its hang-up does not keep the master busy."""
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(4 if offered else 0)
    dispatch.turn()
    dispatch.socks.pop(1).shutdown(how)
    clients += dispatch.connect(0 if offered else 4)
    events = engine.wait_until(lambda seen: any(kind == lib.RC_EVENT_DEAF for kind, *_ in seen))
    assert [(worker, text) for kind, worker, _, text in events if kind == lib.RC_EVENT_DEAF] == [
        (1, b"127.0.0.1:%d" % dispatch.address[1])
    ]
    assert dispatch.serve(clients) == {2: 4}
    engine.wait_until(lambda _: not ready(lib.rc_engine_fd(engine.pointer), ms=20))


def test_what_came_to_a_pair_s_own_lane_is_handed_out(engine, fault):
    """Before the group has its front, the first lane is all there is."""
    dispatch = Dispatch(engine, workers=0)
    worker, sock = engine.worker(1), stream(socket.AF_INET, socket.SO_REUSEADDR)
    dispatch.address = engine.bind(worker, sock)
    dispatch.socks[1], clients = sock, []

    def comes(name):
        if name == b"socket" and not clients:  # it listens, and the sink is to be made
            clients.extend(dispatch.connect(1))

    with fault.before_each_call(comes):
        assert engine.listen(worker, sock, MARK | 16)
    assert clients
    engine.steer(1)
    assert dispatch.serve(clients) == {1: 1}


def test_what_a_forked_worker_does_not_inherit(engine, lib):
    """A connection that the master holds would stay open in it."""
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(2)
    dispatch.turn()
    engine.steer(2)  # what the first had not taken is with us
    hand = engine.struct.groups.undelivered
    assert hand
    child = os.fork()
    if child == 0:
        lib.rc_engine_abandon(engine.pointer)
        try:
            os.fstat(hand.fd)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert dispatch.serve(clients) == {2: 2}


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_every_call_of_a_join_fails_once(ffi, lib, fault, fds, passes, workers):
    """A listen that fails says so, leaves nothing open, and works when repeated."""
    before, bad = fds(), fault.bad_closes
    for n in range(1, 400):
        with Engine(ffi, lib) as engine:
            dispatch = Dispatch(engine, workers=workers, passes=passes)
            worker, sock = engine.worker(9), stream(socket.AF_INET, socket.SO_REUSEADDR)
            engine.bind(worker, sock, dispatch.address)
            fault.arm(n, errno.ENOMEM)
            try:
                engine.listen(worker, sock, (MARK if passes else 0) | 16)
            except OSError as problem:
                assert problem.errno in (errno.ENOMEM, errno.EADDRINUSE)
            fired = fault.disarm()
            engine.wait(0)
            sock.close()
            for one in dispatch.socks.values():
                one.close()
        assert fault.bad_closes == bad
        if not fired:
            break
    else:
        raise AssertionError("it never came to its end")
    assert fds() == before


@pytest.mark.parametrize("policy", [ROUND_ROBIN, LEAST])
@pytest.mark.parametrize("name", ["timerfd_create", "epoll_ctl", "socket", "bind"])
def test_a_policy_that_cannot_open(ffi, lib, fault, fds, policy, name):
    before = fds()
    with Engine(ffi, lib) as engine:
        assert lib.rc_balance(engine.pointer, getattr(lib, policy)) == 0
        fault.arm(1, errno.EMFILE, name)
        result = lib.rc_balance_dispatch(engine.pointer)
        fired = fault.disarm()
        assert result == (-errno.EMFILE if fired else 0)
        assert fired or policy == ROUND_ROBIN
        assert lib.rc_balance_dispatch(engine.pointer) == 0
    assert fds() == before
