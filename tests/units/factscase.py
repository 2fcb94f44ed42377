"""What the tests of a worker's connections begin with: workers that do what a test says.

They are real processes that lead their groups and take from a lane they have inherited; each
does the lines of Python that a test sends it, one by one.
"""

import collections
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from .harness import Clock, check, connect, needs_ipv6, ready, stream

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


def defer(server):
    """The lane keeps a client in SYN_RECV until it says something: a half-open
    handshake without a privilege. Seconds: how long it may."""
    server.lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)


def receive_until_eof(client):
    while True:
        assert ready(client)
        if not client.recv(1 << 20):
            return


PLACES = [
    pytest.param(FOUR, "0.0.0.0", "127.0.0.1", id="any4"),
    pytest.param(SIX, "::1", "::1", marks=needs_ipv6, id="v6"),
    pytest.param(SIX, "::", "::1", marks=needs_ipv6, id="any6"),
    pytest.param(SIX, "::", "127.0.0.1", marks=needs_ipv6, id="dual"),
    pytest.param(SIX, "::ffff:127.0.0.1", "127.0.0.1", marks=needs_ipv6, id="mapped"),
]
