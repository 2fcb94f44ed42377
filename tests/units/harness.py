"""Owns the tests' side of an engine: calls as a door makes them, and clients.

A worker here is a struct without a process: the test process itself stands in
for it, so `call.fd` and `call.number` are the test's own sockets.
"""

import errno
import os
import select
import socket
import struct
import time
from pathlib import Path

import pytest


class Clock:
    """A deadline that is only ever used as a timeout of poll."""

    def __init__(self, seconds=5.0):
        self.end = time.monotonic() + seconds

    def is_over(self):
        return time.monotonic() >= self.end

    def left_ms(self):
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return int(left * 1000) + 1


def ready(fd, events=select.POLLIN, ms=5000):
    """Whether fd becomes ready within ms."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(ms))


def children():
    """Whom this process has to wait for. Others' tests may have left some, in the same process."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


def check(result, what=""):
    if result < 0:
        raise OSError(-result, os.strerror(-result), what)
    return result


def packed(family, address):
    host, port = address[:2]
    ip = socket.inet_pton(family, host)
    if family == socket.AF_INET:
        return struct.pack("=H2s4s8x", family, port.to_bytes(2, "big"), ip)
    return struct.pack("=H2sI16sI", family, port.to_bytes(2, "big"), 0, ip, 0)


def stream(family=socket.AF_INET, *options, protocol=0):
    """A non-blocking TCP socket with the given SOL_SOCKET options on."""
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    sock.setblocking(False)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    return sock


def has(family, protocol=0, address=None):
    try:
        with socket.socket(family, socket.SOCK_STREAM, protocol) as sock:
            if address:
                sock.bind(address)
        return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has(socket.AF_INET6, 0, ("::1", 0)), reason="no IPv6 here")


def start_connect(address):
    """(client, errno): a client that leaves no TIME_WAIT begins to connect."""
    client = stream(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return client, client.connect_ex(address)


def connect(address, ms=5000):
    """A connected client; TimeoutError if nobody answers."""
    client, error = start_connect(address)
    if error == errno.EINPROGRESS:
        if not ready(client, select.POLLOUT, ms):
            client.close()
            raise TimeoutError(f"no answer from {address} in {ms} ms")
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        client.close()
        raise OSError(error, os.strerror(error))
    return client


def queue_of(listener):
    """How many connections wait: tcpi_unacked of struct tcp_info."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return struct.unpack_from("=I", info, 24)[0]


def lanes_of_workers(engine):
    """worker -> its lane in the engine's first group."""
    group = engine.struct.groups
    lanes = group.lanes[0 : group.count]
    return {lane.worker.id: lane for lane in lanes if lane.worker}


def accept_all(lane):
    """Ports of the clients that wait in a lane; their connections are closed."""
    ports = []
    while True:
        try:
            connection, peer = lane.accept()
        except BlockingIOError:
            return ports
        connection.close()
        ports.append(peer[1])


def arrivals(lanes, expected, seconds=5.0):
    """Accepts from `lanes` (name: socket) until each client port of `expected`
    has come; returns {port: name} of all that came."""
    clock, came = Clock(seconds), {}
    poll = select.poll()
    for lane in lanes.values():
        poll.register(lane, select.POLLIN)
    while not expected <= came.keys():
        poll.poll(clock.left_ms())
        for name, lane in lanes.items():
            came.update(dict.fromkeys(accept_all(lane), name))
    return came


def spread(lanes, address, count):
    """Makes `count` connections; {name: how many came in that lane}."""
    clients = [connect(address) for _ in range(count)]
    ports = {client.getsockname()[1] for client in clients}
    came = arrivals(lanes, ports)
    for client in clients:
        client.close()
    names = [came[port] for port in ports]
    return {name: names.count(name) for name in lanes}


class Engine:
    """An engine, and calls on it as a door would make them."""

    def __init__(self, ffi, lib, flags=0):
        self.ffi, self.lib = ffi, lib
        out = ffi.new("rc_engine **")
        check(lib.rc_engine_new(out, flags), "rc_engine_new")
        self.pointer = out[0]
        self.struct = ffi.cast("struct rc_engine *", self.pointer)
        self.events = ffi.new("struct rc_event[]", lib.RC_EVENTS_MIN)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.free()

    def free(self):
        pointer, self.pointer = self.pointer, self.ffi.NULL
        self.lib.rc_engine_free(pointer)

    def worker(self, number, heir_of=0):
        channel = self.ffi.new("int *")
        check(self.lib.rc_worker_new(self.pointer, number, heir_of, channel), "rc_worker_new")
        worker = self.lib.rc_find(self.struct, number)
        assert worker.id == number
        return worker

    def _ask(self, function, worker, sock, address=b"", backlog=0, path=b""):
        call, answer = self.ffi.new("struct rc_call *"), self.ffi.new("struct rc_answer *")
        call.worker, call.pid = worker, os.getpid()
        call.fd = call.number = sock.fileno()
        call.length, call.backlog = len(address), backlog
        self.ffi.memmove(self.ffi.addressof(call, "address"), address, len(address))
        call.path_length = len(path)
        self.ffi.memmove(self.ffi.addressof(call, "path"), path, len(path))
        function(self.struct, call, answer)
        if answer.later:
            answer.later.answer = self.ffi.addressof(self.lib, "fault_later")
            answer.result = self._later()
            answer.__setattr__("pass", answer.result == 1)
            answer.result = min(answer.result, 0)
        check(answer.result, "the door")
        if answer.replace >= 0:
            os.dup2(answer.replace, sock.fileno(), inheritable=False)
        if answer.owned:
            os.close(answer.replace)
        return answer

    def _later(self):
        """What a call whose answer has to wait is answered; 1: it passes."""
        clock, result = Clock(), self.ffi.new("int *")
        while not self.lib.fault_answer(result):
            self.wait(clock.left_ms())
        return result[0]

    def bind(self, worker, sock, address=("127.0.0.1", 0)):
        """The bound address, as the worker's program would learn it."""
        answer = self._ask(self.lib.rc_lanes_bind, worker, sock, packed(sock.family, address))
        if getattr(answer, "pass"):
            sock.bind(address)
        return sock.getsockname()[:2]

    def bind_unix(self, worker, sock, path):
        """Whether the bind was answered; a leading zero byte: abstract."""
        name = os.fsencode(path)
        address = struct.pack("=H", socket.AF_UNIX) + name + b"\0" * (name[0] != 0)
        answer = self._ask(self.lib.rc_lanes_bind, worker, sock, path=address)
        if getattr(answer, "pass"):
            sock.bind(path)
        return not getattr(answer, "pass")

    def listen(self, worker, sock, backlog=16):
        """Whether the socket is a lane now (or else the worker's own business)."""
        answer = self._ask(self.lib.rc_lanes_listen, worker, sock, backlog=backlog)
        if getattr(answer, "pass"):
            sock.listen(backlog)
        return not getattr(answer, "pass")

    def lane(self, number, address=("127.0.0.1", 0), family=socket.AF_INET):
        """A worker of that number with one lane: its socket."""
        worker, sock = self.worker(number), stream(family, socket.SO_REUSEADDR)
        self.bind(worker, sock, address)
        assert self.listen(worker, sock)
        return sock

    def steer(self, *live, **weights):
        """Workers by number; their weights as w<number>=..."""
        parts = [{"worker": one, "weight": weights.get(f"w{one}", 1)} for one in live]
        array = self.ffi.new("struct rc_live[]", parts)
        check(self.lib.rc_steer(self.pointer, array, len(parts)), "rc_steer")

    def balance(self, name):
        policy = getattr(self.lib, f"RC_BALANCE_{name.upper()}")
        check(self.lib.rc_balance(self.pointer, policy), "rc_balance")

    def place(self, number, slot=0, party=0, generation=0):
        check(self.lib.rc_worker_place(self.pointer, number, slot, party, generation), "place")

    def bury(self, number):
        """The worker is dead and gone: its lanes are removed."""
        self.lib.rc_find(self.struct, number).dead = True
        self.lib.rc_lanes_resteer(self.struct)
        check(self.lib.rc_worker_release(self.pointer, number), "rc_worker_release")

    def sink(self):
        """A dup of the newest group's sink, or None."""
        group = self.struct.groups
        if not group or not group.sink:
            return None
        return socket.socket(fileno=os.dup(group.sink.source.fd))

    def lanes(self):
        """Facts of each lane: (worker, chosen, queued, backlog, address)."""
        facts = self.ffi.new("struct rc_lane_facts[]", 64)
        count = self.lib.rc_lanes(self.pointer, facts, 64)
        return [
            (
                one.worker,
                bool(one.chosen),
                one.queued,
                one.backlog,
                self.ffi.string(one.address).decode(),
            )
            for one in facts[0:count]
        ]

    def wait(self, ms=5000):
        """One turn of the loop: a list of (kind, worker, value, text)."""
        count = check(self.lib.rc_wait(self.pointer, self.events, self.lib.RC_EVENTS_MIN, ms))
        return [self._event(event) for event in self.events[0:count]]

    def _event(self, event):
        text = self.ffi.unpack(event.text, event.length) if event.text else b""
        return event.kind, event.worker, event.value, text

    def wait_until(self, done, seconds=5.0):
        """Turns the loop until done(events so far); returns those events."""
        clock, events = Clock(seconds), []
        while not done(events):
            events += self.wait(clock.left_ms())
        return events

    def program(self, *argv, env=()):
        """A struct rc_program; keeps what it points to alive."""
        program = self.ffi.new("struct rc_program *")
        texts = [self.ffi.new("char[]", os.fsencode(text)) for text in (*argv, *env)]
        arguments = self.ffi.new("char *[]", [*texts[: len(argv)], self.ffi.NULL])
        environment = self.ffi.new("char *[]", [*texts[len(argv) :], self.ffi.NULL])
        program.path, program.argv, program.envp = texts[0], arguments, environment
        self.kept = (program, texts, arguments, environment)
        return program
