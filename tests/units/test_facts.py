"""Owns: what the kernel knows of a retired worker's connections, and what it owes.

The workers are real processes that lead their groups and take from a lane they
have inherited; each does the lines of Python that a test sends it, one by one.
"""

import collections
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from .harness import Clock, check, connect, has, needs_ipv6, queue_of, ready, stream

SIX, FOUR = socket.AF_INET6, socket.AF_INET
INT_MAX = 2**31 - 1
REQUEST, ANSWER = b"q" * 100, b"a" * 200

SERVER = """
import os, select, signal, socket, sys, time
lane = socket.socket(fileno=int(sys.argv[1]))
taken = []

def accept():
    select.select([lane], [], [])
    taken.append(lane.accept()[0])
    taken[-1].setblocking(True)

def answer(at=-1):
    assert taken[at].recv(100)
    taken[at].sendall(b"a" * 200)

def tick():
    # The kernel's time stamps of a connection are in jiffies: the next one has come.
    coarse = 6  # CLOCK_MONOTONIC_COARSE, which Python does not name
    for _ in range(2):
        now = time.clock_gettime(coarse)
        while time.clock_gettime(coarse) == now:
            pass

def fill():
    taken[-1].setblocking(False)
    try:
        while True:
            taken[-1].send(b"x" * 65536)
    except BlockingIOError:
        pass

def hand_over(leave_group):
    # A child holds what was taken; it stays until its pipe ends.
    reader, writer = os.pipe()
    if os.fork() == 0:
        if leave_group:
            os.setsid()
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    taken.clear()
    return writer

for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""

Facts = collections.namedtuple("Facts", "connections owing quiet_ms half_open queued")
UNKNOWN = (-1, -1, 0)


class Server:
    """A worker with one lane, and the process that takes from it."""

    def __init__(self, engine, number, lane):
        self.engine, self.number, self.lane = engine, number, lane
        self.address = lane.getsockname()[:2]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(lane.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[lane.fileno()],
            start_new_session=True,
        )
        engine.lib.rc_find(engine.struct, number).pid = self.process.pid

    def do(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        assert ready(self.process.stdout) and self.process.stdout.readline() == b"done\n"

    def begin(self):
        check(self.engine.lib.rc_drain_begin(self.engine.pointer, [self.number], 1))

    def try_look(self):
        facts = self.engine.ffi.new("struct rc_drain_facts *")
        error = self.engine.lib.rc_drain_look(self.engine.pointer, self.number, facts)
        return error or Facts(*(getattr(facts, name) for name in Facts._fields))

    def look(self):
        facts = self.try_look()
        assert isinstance(facts, Facts), os.strerror(-facts)
        return facts

    def count(self):
        facts = self.look()
        return facts.connections, facts.owing

    def until(self, connections, owing):
        clock = Clock()
        while self.count() != (connections, owing):
            select.poll().poll(min(20, clock.left_ms()))
        return self.look()

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def lane_at(engine, number, family, host, port=0):
    return another_lane(engine, engine.worker(number), family, host, port)


def another_lane(engine, worker, family, host, port=0):
    sock = stream(family, socket.SO_REUSEADDR)
    if family == SIX:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    engine.bind(worker, sock, (host, port))
    assert engine.listen(worker, sock, 1024)
    return sock


@pytest.fixture
def serve(engine):
    """Starts servers, and ends them."""
    with contextlib.ExitStack() as stack:

        def start(number=1, family=FOUR, host="127.0.0.1", port=0):
            lane = stack.enter_context(lane_at(engine, number, family, host, port))
            server = Server(engine, number, lane)
            stack.callback(server.stop)
            engine.steer(number)
            return server

        yield start


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def dial():
    """Connects clients, and closes them."""
    with contextlib.ExitStack() as stack:
        yield lambda server, host=None: stack.enter_context(
            connect((host or server.address[0], server.address[1]))
        )


@pytest.fixture
def idle(server, dial):
    """A connection that has had its answer, and whose worker retires."""
    client = dial(server)
    client.send(REQUEST)
    server.do("accept(); answer()")
    assert receive(client, len(ANSWER)) == ANSWER
    server.begin()
    return client


def receive(client, length):
    got = b""
    while len(got) < length:
        assert ready(client), f"{len(got)} of {length}"
        part = client.recv(length - len(got))
        assert part
        got += part
    return got


def receive_until_quiet(client):
    while ready(client, ms=200):
        assert client.recv(1 << 20)


# ---- what owes ----------------------------------------------------------------


def test_no_connections(server):
    server.begin()
    assert server.look() == (0, 0, INT_MAX, 0, 0)


def test_nothing_received_owes(server, dial):
    dial(server)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)


def test_accepted_unread_owes(server, dial):
    dial(server).send(REQUEST)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)


def test_unanswered_owes_for_as_long_as_it_takes(server, dial):
    dial(server).send(REQUEST)
    server.do("accept(); taken[0].recv(100)")
    server.begin()
    clock = Clock(1.5)  # longer than a tie of timestamps would owe
    with contextlib.suppress(TimeoutError):
        while True:
            facts = server.look()
            assert facts[:2] == (1, 1)
            select.poll().poll(min(100, clock.left_ms()))
    assert 1000 <= facts.quiet_ms < 60000


def test_answered_does_not_owe(server, idle):
    facts = server.until(1, 0)
    assert facts.quiet_ms < 60000
    assert server.count() == (1, 0), "idle from now on"


def test_answered_in_the_same_tick_owes_for_a_second_at_most(server):
    server.do("clients = [socket.create_connection(lane.getsockname()) for _ in range(8)]")
    server.do("for client in clients: client.send(b'q'); accept(); answer(); client.recv(200)")
    server.begin()
    server.until(8, 0)


def test_greeting_is_no_answer(server, dial):
    client = dial(server)
    server.do("accept(); tick(); taken[0].sendall(b'220 hello')")
    server.begin()
    assert server.count() == (1, 1)
    client.shutdown(socket.SHUT_WR)
    assert server.count() == (1, 1)


def test_server_that_answers_by_closing_owes_nothing(server, dial):
    client = dial(server)
    client.send(REQUEST)
    server.do("accept(); taken[0].recv(100); taken[0].shutdown(socket.SHUT_WR)")
    receive_until_eof(client)
    server.begin()
    server.until(1, 0)


def test_next_request_owes(server, idle):
    server.until(1, 0)
    idle.send(REQUEST)
    assert server.count() == (1, 1)
    server.do("taken[0].recv(100)")
    assert server.count() == (1, 1)
    server.do("taken[0].sendall(b'a' * 200)")
    server.until(1, 0)


def test_pipelined_request_owes(server, dial):
    client = dial(server)
    client.send(REQUEST * 2)
    server.do("accept(); answer()")
    server.begin()
    assert server.count() == (1, 1)
    server.do("answer()")
    server.until(1, 0)


def test_unsent_answer_owes(server, dial):
    client = dial(server)
    client.send(REQUEST)
    server.do("accept(); taken[0].recv(100); fill()")
    server.begin()
    clock = Clock(1.5)
    with contextlib.suppress(TimeoutError):
        while True:
            assert server.count() == (1, 1)
            select.poll().poll(min(100, clock.left_ms()))
    receive_until_quiet(client)
    server.until(1, 0)


def test_half_closed_owes_until_answered(server, dial):
    client = dial(server)
    client.send(REQUEST)
    client.shutdown(socket.SHUT_WR)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)
    server.do("taken[0].recv(100); assert taken[0].recv(1) == b''")
    assert server.count() == (1, 1)
    server.do("taken[0].sendall(b'a' * 200)")
    server.until(1, 0)
    server.do("taken.clear()")
    server.until(0, 0)


def test_half_closed_while_idle_owes_nothing(server, idle):
    server.until(1, 0)
    idle.shutdown(socket.SHUT_WR)
    assert server.count() == (1, 0), "an unread end of file is not a request"


def test_half_closed_after_an_unread_request_owes(server, idle):
    server.until(1, 0)
    idle.send(b"q")
    idle.shutdown(socket.SHUT_WR)
    assert server.count() == (1, 1)


def test_server_that_has_said_its_last_owes_delivery_only(server, idle):
    idle.send(REQUEST)
    server.do("taken[0].recv(100); fill(); taken[0].shutdown(socket.SHUT_WR)")
    assert server.count() == (1, 1)
    receive_until_eof(idle)
    server.until(1, 0)
    idle.send(REQUEST)
    assert server.count() == (1, 1), "closed with this unread, it would reset"


def receive_until_eof(client):
    while True:
        assert ready(client)
        if not client.recv(1 << 20):
            return


# ---- which connections -----------------------------------------------------------


def test_closed_ones_drop_out(server, dial):
    clients = [dial(server) for _ in range(4)]
    server.do("[accept() for _ in range(4)]")
    server.begin()
    assert server.count() == (4, 4)
    server.do("taken.pop()")
    assert server.count() == (3, 3)
    for client in clients:
        client.close()  # a reset: it is closed although the server still holds it
    assert server.look()[:3] == (0, 0, INT_MAX)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_other_workers_of_the_port_are_not_counted(serve, dial, host):
    first = serve(1, host=host)
    old = [dial(first, "127.0.0.1") for _ in range(2)]
    second = serve(2, host=host, port=first.address[1])
    new = [dial(first, "127.0.0.1") for _ in range(3)]
    first.do(f"[accept() for _ in range({len(old)})]")
    second.do(f"[accept() for _ in range({len(new)})]")
    first.begin()
    second.begin()
    assert (first.count(), second.count()) == ((2, 2), (3, 3))


def test_what_waits_makes_it_unknown_until_it_was_taken(server, dial):
    dial(server)
    server.begin()
    assert server.look() == (*UNKNOWN, 0, 1)
    server.do("accept()")
    assert server.look() == (*UNKNOWN, 0, 0), "accept may not be over"
    assert server.count() == (1, 1)
    dial(server)
    assert server.look() == (*UNKNOWN, 0, 1)
    server.do("accept()")
    server.until(2, 2)


def test_without_begin(server, dial):
    dial(server)
    server.do("accept()")
    assert server.count() == (1, 1)


@pytest.mark.parametrize("leave_group", [False, True], ids=["group", "session"])
def test_children_hold_for_the_worker(server, dial, leave_group):
    dial(server)
    server.do(f"accept(); writer = hand_over({leave_group})")
    server.begin()
    assert server.count() == (1, 1)
    server.do("os.close(writer); os.wait()")
    assert server.count() == (0, 0)


def test_member_of_the_group_whose_parent_has_ended(server, dial):
    dial(server)
    server.do("accept(); pid = os.fork(); pid or os.fork() and os._exit(0) or time.sleep(60)")
    server.do("os.waitpid(pid, 0); taken.clear()")
    server.begin()
    assert server.count() == (1, 1)


def test_zombies_are_no_obstacle(server, dial):
    dial(server)
    server.do("accept(); os.fork() or os._exit(0)")
    server.do("os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)")
    server.begin()
    assert server.count() == (1, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_an_error(server, dial):
    dial(server)
    server.do("accept(); import ctypes; ctypes.CDLL(None).prctl(4, 0)")  # PR_SET_DUMPABLE
    server.begin()
    assert server.try_look() == -errno.EACCES


def test_lane_that_the_worker_shut_down(serve, engine, dial):
    server = serve(1)
    dial(server)
    server.do("accept()")
    serve(2, port=server.address[1])
    server.begin()
    server.do("lane.shutdown(socket.SHUT_RDWR)")  # as grpcio's stop() does
    engine.wait_until(lambda _: all(lane[0] == 2 for lane in engine.lanes()))
    assert server.count() == (1, 1)


def test_dead_worker(server, engine, lib, dial):
    dial(server)
    server.do("accept()")
    server.begin()
    lib.rc_find(engine.struct, 1).dead = True
    assert server.look() == (0, 0, INT_MAX, 0, 0)


PLACES = [
    pytest.param(FOUR, "0.0.0.0", "127.0.0.1", id="any4"),
    pytest.param(SIX, "::1", "::1", marks=needs_ipv6, id="v6"),
    pytest.param(SIX, "::", "::1", marks=needs_ipv6, id="any6"),
    pytest.param(SIX, "::", "127.0.0.1", marks=needs_ipv6, id="dual"),
    pytest.param(SIX, "::ffff:127.0.0.1", "127.0.0.1", marks=needs_ipv6, id="mapped"),
]


@pytest.mark.parametrize("family, host, to", [pytest.param(FOUR, *["127.0.0.1"] * 2), *PLACES])
def test_each_family(serve, dial, family, host, to):
    server = serve(family=family, host=host)
    dial(server, to).send(REQUEST)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)
    server.do("answer()")
    server.until(1, 0)
    server.do("taken.clear()")
    assert server.count() == (0, 0)


def test_unknown_worker(engine, ffi, lib):
    facts = ffi.new("struct rc_drain_facts *")
    assert lib.rc_drain_begin(engine.pointer, [7, 8], 2) == 0
    assert lib.rc_drain_begin(engine.pointer, [], 0) == 0
    assert lib.rc_drain_look(engine.pointer, 7, facts) == -errno.ESRCH


# ---- handshakes -------------------------------------------------------------------


def defer(server):
    """The lane keeps a client in SYN_RECV until it says something: a half-open
    handshake without a privilege. Seconds: how long it may."""
    server.lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)


@pytest.mark.parametrize("family, host, to", [pytest.param(FOUR, *["127.0.0.1"] * 2), *PLACES])
def test_half_open_of_before(serve, dial, family, host, to):
    server = serve(family=family, host=host)
    defer(server)
    early = [dial(server, to) for _ in range(2)]
    server.begin()
    dial(server, to)  # later: not its own
    assert server.look() == (0, 0, INT_MAX, 2, 0)
    early[0].send(REQUEST)
    assert server.look() == (*UNKNOWN, 1, 1)
    server.do("accept()")
    assert server.look() == (*UNKNOWN, 1, 0)
    assert server.look()[:4:3] == (1, 1)
    early[1].close()  # a reset
    assert server.look() == (*UNKNOWN, 0, 0), "it might have been accepted"
    assert server.count() == (1, 1)


def test_half_open_taken_between_two_looks(server, dial):
    defer(server)
    client = dial(server)
    server.begin()
    assert server.count() == (0, 0)
    client.send(REQUEST)
    server.do("accept()")
    assert server.look() == (*UNKNOWN, 0, 0)
    assert server.count() == (1, 1)


def test_half_open_is_shared_by_those_that_retire_together(serve, engine, lib, dial):
    first = serve(1)
    defer(first)
    client = dial(first)
    second = serve(2, port=first.address[1])
    assert lib.rc_drain_begin(engine.pointer, [1, 2, 1], 3) == 0
    assert (first.look().half_open, second.look().half_open) == (1, 1)
    engine.bury(1)
    assert second.look().half_open == 1
    client.close()
    assert second.look() == (*UNKNOWN, 0, 0)
    assert second.look() == (0, 0, INT_MAX, 0, 0)


def test_half_open_at_another_address_is_not_taken(serve, dial):
    first = serve(1)
    second = serve(2, host="127.0.0.2", port=first.address[1])
    defer(second)
    dial(second)
    first.begin()
    assert first.look().half_open == 0
    second.begin()
    assert second.look().half_open == 1


def test_flood_of_half_open(server, dial):
    defer(server)
    clients = [dial(server) for _ in range(200)]
    server.begin()
    facts = server.look()
    assert facts[:3] == UNKNOWN and facts.half_open == 200
    for client in clients:
        client.close()
    left = [server.look().half_open for _ in range(5)]
    assert left[0] > 0 and left[-1] == 0
    assert server.count() == (0, 0)


# ---- failures, cost ------------------------------------------------------------------


@pytest.mark.parametrize("call", ["socket", "connect", "sendmsg", "recvmsg"])
@pytest.mark.parametrize("error", [errno.EPERM, errno.EAFNOSUPPORT, errno.ENOBUFS])
def test_netlink_refused(engine, lib, server, dial, fault, fds, call, error):
    dial(server)
    server.do("accept()")
    before = fds()
    fault.arm(1, error, call, sticky=True)
    assert lib.rc_drain_begin(engine.pointer, [1], 1) == -error
    assert server.try_look() == -error
    assert fault.disarm() == 2
    assert fds() == before
    server.begin()
    assert server.count() == (1, 1)


def test_whatever_fails_once_the_next_look_knows(engine, server, dial, fault, fds):
    dial(server)
    server.do("accept()")
    defer(server)
    dial(server)
    for n in range(1, 100):
        fault.arm(n, errno.ENOMEM)
        begun = engine.lib.rc_drain_begin(engine.pointer, [1], 1)
        facts = server.try_look()
        fired = fault.disarm()
        results = [begun, facts]
        # getsockopt says of a queue that it is empty; without poll each queue is asked.
        if fired and fault.last not in ("getsockopt", "poll"):
            assert results.count(-errno.ENOMEM) == 1, fault.last
        assert facts == -errno.ENOMEM or facts[:2] == (1, 1), fault.last
        assert server.until(1, 1).half_open == 1
        if not fired:
            break
    else:
        raise AssertionError("no end")
    assert n > 10


def test_no_descriptor_is_left(new_engine, lib, fds):
    before = fds()
    engine = new_engine()
    with lane_at(engine, 1, FOUR, "127.0.0.1"):
        lib.rc_find(engine.struct, 1).pid = os.getpgrp()
        assert lib.rc_drain_begin(engine.pointer, [1], 1) == 0
        engine.free()
    assert fds() == before


def test_descriptor_is_not_inherited(server, fds):
    before = fds()
    server.begin()
    (netlink,) = fds().keys() - before.keys()
    assert not os.get_inheritable(netlink)


def test_lanes_of_many_ports_are_asked_for_at_once(new_engine, lib, fault):
    """Those of the worker's connections that came to its ports, and no other's; the kernel
    is asked once for each family, however many ports there are."""
    engine = new_engine()
    with contextlib.ExitStack() as stack:
        hosts = [(FOUR, "127.0.0.1")] * 40 + [(SIX, "::1")] * 40 * has(SIX, 0, ("::1", 0))
        worker = engine.worker(1)
        mine = [stack.enter_context(another_lane(engine, worker, *host)) for host in hosts]
        engine.steer(1)
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(40)]
        for lane in (*mine, *others):
            stack.enter_context(socket.create_connection(lane.getsockname()[:2]))
            stack.enter_context(lane.accept()[0])
        group = os.getpgrp()
        os.setpgid(0, 0)  # whoever else is in the group may be somebody's whom we may not look into
        stack.callback(os.setpgid, 0, group)
        lib.rc_find(engine.struct, 1).pid = os.getpid()
        asked = collections.Counter()
        with fault.before_each_call(lambda name: asked.update([name])):
            check(lib.rc_drain_begin(engine.pointer, [1], 1))
            facts = engine.ffi.new("struct rc_drain_facts *")
            check(lib.rc_drain_look(engine.pointer, 1, facts))
        assert facts.connections == len(mine)
        assert facts.half_open == facts.queued == 0
        assert asked[b"sendmsg"] <= 4 + len(mine), "two dumps of each family, then one by one"
        engine.free()


def test_what_waits_is_counted_among_many_lanes(engine, fault):
    """Also where poll is refused."""
    with contextlib.ExitStack() as stack:
        worker = engine.worker(1)
        lanes = [another_lane(engine, worker, FOUR, "127.0.0.1") for _ in range(70)]
        for lane in lanes:
            stack.enter_context(lane)
        engine.steer(1)
        for lane in (lanes[0], lanes[35], lanes[35], lanes[69]):
            stack.enter_context(connect(lane.getsockname()))
        for lane in (lanes[0], lanes[35], lanes[69]):
            assert select.select([lane], [], [], 5)[0]
        assert engine.lib.rc_queued(engine.pointer, 1) == 4
        fault.arm(1, errno.EINVAL, "poll", sticky=True)
        assert engine.lib.rc_queued(engine.pointer, 1) == 4
        assert fault.disarm() == 2
        lanes[35].accept()[0].close()
        assert engine.lib.rc_queued(engine.pointer, 1) == 3


def test_cost(server, dial, capsys):
    count = 500
    clients = []
    for _ in range(count):
        clients.append(dial(server))
        server.do("accept()")
    times = []
    for step in (server.begin, server.look, server.look, server.look):
        start = time.perf_counter()
        facts = step()
        times.append((time.perf_counter() - start) * 1e6)
    assert facts[:2] == (count, count) and queue_of(server.lane) == 0
    with capsys.disabled():
        print(
            f"\n{count} connections: begin {times[0]:.0f} us, first look {times[1]:.0f} us, "
            f"then {times[3]:.0f} us, {times[3] / count:.1f} each"
        )
