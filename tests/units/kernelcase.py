"""What the tests of steering by eBPF begin with: engines that do, lanes, connections
that stay. Skips where CAP_BPF is missing.
"""

import contextlib
import errno
import os
import socket
import struct

import pytest

from .harness import Clock, check, connect, needs_ipv6

SIX, FOUR = socket.AF_INET6, socket.AF_INET
LOOPBACK = ("127.0.0.1", 0)

PLACES = [
    pytest.param(FOUR, "127.0.0.1", "127.0.0.1"),
    pytest.param(FOUR, "0.0.0.0", "127.0.0.1"),
    pytest.param(SIX, "::1", "::1", marks=needs_ipv6),
    pytest.param(SIX, "::", "::1", marks=needs_ipv6),
    pytest.param(SIX, "::", "127.0.0.1", marks=needs_ipv6),
]


def uneven(found):
    return max(found.values()) - min(found.values())


@pytest.fixture(params=["round_robin", "least_connections"])
def policy(request):
    return request.param


@pytest.fixture
def balanced(new_engine, ffi, lib):
    """Makes engines that steer by eBPF, or skips."""

    def make(policy):
        engine, refused = new_engine(), ffi.new("const char **")
        number = getattr(lib, f"RC_BALANCE_{policy.upper()}")
        check(lib.rc_balance(engine.pointer, number))
        result = lib.rc_balance_kernel(engine.pointer, refused)
        if result < 0:
            what = f"{ffi.string(refused[0]).decode()}: {os.strerror(-result)}"
            if os.geteuid() == 0 and result == -errno.ENOMSG:
                pytest.fail(what)  # the privilege is there, and something else is wrong
            pytest.skip(f"no {policy} in the kernel here ({what})")
        return engine

    return make


@pytest.fixture
def robin(balanced):
    return balanced("round_robin")


@pytest.fixture
def least(balanced):
    return balanced("least_connections")


def lanes_of(engine, count, address=LOOPBACK, family=FOUR):
    lanes = {}
    for number in range(1, count + 1):
        lanes[number] = engine.lane(number, address, family)
        address = lanes[1].getsockname()[:2]
    return lanes, address


def attached(engine):
    return bool(engine.struct.groups.plan.attached)


def counts(engine):
    """worker: its connections, as the kernel counts them."""
    facts = engine.ffi.new("struct rc_lane_facts[]", 600)
    found = {}
    for one in facts[0 : engine.lib.rc_lanes(engine.pointer, facts, 600)]:
        found[one.worker] = found.get(one.worker, 0) + one.connections
    return found


def until_counts(engine, wanted, seconds=5.0):
    """Counts follow packets, which other CPUs may still handle."""
    clock = Clock(seconds)
    while (now := counts(engine)) != wanted:
        try:
            clock.left_ms()
        except TimeoutError:
            assert now == wanted
        os.sched_yield()


class Held:
    """Connections that stay: clients, and the accepted ends by worker."""

    def __init__(self, lanes, address):
        self.lanes, self.address = lanes, address
        self.clients, self.accepted = {}, {number: [] for number in lanes}
        self.left = []

    def burst(self, count):
        """All SYNs come before the first handshake ends: with TCP_DEFER_ACCEPT it
        ends with the first byte of data."""
        for lane in self.lanes.values():
            lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        fresh = [connect(self.address) for _ in range(count)]
        for lane in self.lanes.values():
            lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        for client in fresh:
            client.send(b"x")
        self._accept(fresh)

    def open(self, count):
        self._accept([connect(self.address) for _ in range(count)])

    def _accept(self, fresh):
        wanted = {client.getsockname()[1]: client for client in fresh}
        clock = Clock()
        while wanted:
            for number, lane in self.lanes.items():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        connection, peer = lane.accept()
                        self.clients[peer[1]] = (number, wanted.pop(peer[1]))
                        self.accepted[number].append(connection)
            clock.left_ms()

    def counts(self):
        found = dict.fromkeys(self.lanes, 0)
        for number, _ in self.clients.values():
            found[number] += 1
        return found

    def lose(self, number, how):
        """All connections of that worker end."""
        ours = [port for port, (owner, _) in self.clients.items() if owner == number]
        for port in ours:
            _, client = self.clients.pop(port)
            if how == "client":  # an orderly end; the server still has to close
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            if how != "server":
                client.close()
            else:  # it does not notice
                self.left.append(client)
        if how != "reset":
            for connection in self.accepted[number]:
                connection.close()
        self.accepted[number].clear()

    def close(self):
        for number in self.lanes:
            self.lose(number, "server")
        for client in self.left:
            client.close()


@pytest.fixture
def held():
    with contextlib.ExitStack() as stack:

        def hold(lanes, address):
            made = Held(lanes, address)
            stack.callback(made.close)
            return made

        yield hold


def shut(lanes):
    for lane in lanes.values():
        lane.close()
