"""What the tests of UDP begin with: sockets, workers that bind them, and clients that ask."""

import contextlib
import select
import socket

import pytest
from ports import free_port

from .harness import Clock

REUSEADDR, REUSEPORT = socket.SO_REUSEADDR, socket.SO_REUSEPORT


def datagram(family=socket.AF_INET, *options):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    return sock


@pytest.fixture
def datagrams():
    with contextlib.ExitStack() as stack:
        yield lambda *given: stack.enter_context(datagram(*given))


@pytest.fixture
def address():
    return ("127.0.0.1", free_port())


def group_of(engine, datagrams, address, count, heir_of=0, first=1):
    """That many workers with a lane each: {number: socket}."""
    lanes = {}
    for number in range(first, first + count):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = datagrams(family)
        worker = engine.worker(number, heir_of)
        engine.place(number, slot=number)
        assert engine.bind(worker, sock, address) == address
        lanes[number] = sock
    return lanes


def drain(lanes):
    """{text: number of the lane it came to} of all that waits."""
    came = {}
    for number, sock in lanes.items():
        with contextlib.suppress(BlockingIOError):
            while True:
                came[sock.recv(99)] = number
    return came


def ask(clients, lanes, address):
    """Each client sends one datagram; which lane each came to."""
    for number, client in enumerate(clients):
        client.sendto(b"%d" % number, address)
    clock, came = Clock(), {}
    poll = select.poll()
    for sock in lanes.values():
        poll.register(sock, select.POLLIN)
    while len(came) < len(clients):
        poll.poll(clock.left_ms())
        came.update(drain(lanes))
    return [came[b"%d" % number] for number in range(len(clients))]
