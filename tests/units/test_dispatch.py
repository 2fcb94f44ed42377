"""Owns: dispatch (csrc/dispatch.c, pass.c, bell.c, front.c, opens.c): whose turn it is,
back-pressure, and that nothing is lost when a call fails.

The workers have no processes: the test listens for them, with or without the mark of
those who can receive, and accepts what they were given.
"""

import errno
import os
import select
import socket

import pytest

from .harness import Engine, check, connect, needs_ipv6, queue_of, ready, start_connect, stream

MARK = 0x5263 << 16
ROUND_ROBIN, LEAST = "RC_BALANCE_ROUND_ROBIN", "RC_BALANCE_LEAST_CONNECTIONS"


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
        got = self.ffi.new("struct rc_connection *")
        error = self.lib.rc_receive_connection(self.socks[number].fileno(), got)
        if error == -errno.EAGAIN:
            return None
        check(error, "rc_receive_connection")
        with socket.socket(fileno=got.fd) as connection:
            assert connection.family == got.family
        return got.port

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
    assert engine.listen(worker, sock, 2000)
    with front_of(engine) as front:
        assert front.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert front.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert front.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == buffer
        assert front.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF
        )


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
                got = self.ffi.new("struct rc_connection *")
                taker = next(
                    (n for n, sock in self.socks.items()
                     if self.lib.rc_receive_connection(sock.fileno(), got) == 0), None
                )  # fmt: skip
                if taker:
                    break
            self.held[taker].append((client, socket.socket(fileno=got.fd)))

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


# ---- bells ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4, 256])
def test_each_bell_rings_in_its_own_lane(engine, lib, workers):
    dispatch = Dispatch(engine, passes=False, workers=workers)
    group = engine.struct.groups
    for at in range(group.count):
        lane = group.lanes[at]
        if lane.worker:
            check(lib.rc_bell_ring(engine.ffi.addressof(lane.taker, "bell"),
                                   engine.ffi.addressof(group, "key")))  # fmt: skip
            assert ready(lane.source.fd), lane.worker.id
            others = [
                n for n, s in dispatch.socks.items() if n != lane.worker.id and ready(s, 1, 0)
            ]
            assert not others
            hand = engine.ffi.new("struct rc_hand *")
            bell = engine.ffi.addressof(lane.taker, "bell")
            assert lib.rc_bell_silence(bell, lane.source.fd, hand) == 0
            assert not ready(lane.source.fd, 1, 0)
    assert queue_of(front_of(engine)) == 0


def test_a_stranger_at_the_bell_is_a_client(engine, lib):
    """Another address may use the same source port: it must not be lost."""
    dispatch = Dispatch(engine, passes=False, workers=1)
    lane = next(engine.struct.groups.lanes[at] for at in range(3)
                if engine.struct.groups.lanes[at].worker)  # fmt: skip
    bell = engine.ffi.addressof(lane.taker, "bell")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.2", bell.port))
        stranger.connect(dispatch.address)
        check(lib.rc_bell_ring(bell, engine.ffi.addressof(engine.struct.groups, "key")))
        hand = engine.ffi.new("struct rc_hand *")
        assert lib.rc_bell_silence(bell, lane.source.fd, hand) == 1
        with socket.socket(fileno=hand.fd) as found:
            assert found.getpeername() == stranger.getsockname()
        assert lib.rc_bell_silence(bell, lane.source.fd, hand) == 0


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
    """A connection in the master's hand would stay open in it."""
    dispatch = Dispatch(engine, workers=2)
    clients = dispatch.connect(2)
    dispatch.turn()
    engine.steer(2)  # what the first had not taken is in our hand
    hand = engine.struct.groups.hand
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


def test_the_same_file(lib):
    with stream(socket.AF_INET) as one, stream(socket.AF_INET) as other, one.dup() as again:
        assert lib.rc_is_same_file(os.getpid(), again.fileno(), one.fileno())
        assert not lib.rc_is_same_file(os.getpid(), other.fileno(), one.fileno())
        gone = other.fileno()
        other.close()
        assert not lib.rc_is_same_file(os.getpid(), gone, one.fileno())
        assert not lib.rc_is_same_file(2**22 + 1, again.fileno(), one.fileno())  # nobody's pid


def test_one_accept_of_a_thread_is_held(engine, ffi, lib):
    """A signal takes an accept back, and it comes again: as often as there are signals."""
    Dispatch(engine, workers=1, passes=False)
    lane = lane_of(engine, 1)
    for thread, call in ((7, 1), (8, 2), (7, 3), (8, 4), (7, 5)):
        check(lib.rc_held_keep(lane, ffi.new("struct rc_held *", {"id": call, "thread": thread})))
    found, at = [], lane.taker.held
    while at:
        found.append((at.thread, at.id))
        at = at.next
    assert found == [(8, 4), (7, 5)]
    lib.rc_accept_forget(lane)


def test_who_adopts_a_lane_has_none_of_its_promises(engine, lib):
    dispatch = Dispatch(engine, workers=1, passes=False)
    clients = dispatch.connect(1)
    dispatch.turn()
    assert lib.rc_find(engine.struct, 1).promised == 1
    lane_of(engine, 1).deaf = True
    heir, sock = engine.worker(2, heir_of=1), stream(socket.AF_INET, socket.SO_REUSEADDR)
    engine.bind(heir, sock, dispatch.address)
    assert engine.listen(heir, sock)
    old, new = (lib.rc_find(engine.struct, number) for number in (1, 2))
    assert (old.promised, old.given) == (0, 0)
    assert lane_of(engine, 2).taker.offered == bool(new.promised)
    assert engine.struct.groups.promised == new.promised
    assert clients


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_every_call_of_a_join_fails_once(ffi, lib, fault, fds, passes, workers):
    """A listen that fails says so, leaves nothing open, and works when repeated."""
    before = fds()
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
        assert fault.bad_closes == 0
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
