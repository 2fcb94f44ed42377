"""What waits in a dead worker's lane: moved by the kernel, or rung in at siblings by recluster.

    python bench/migrated.py [--rounds 10] [--only bpf recluster]

A bare prefork server on asyncio (a listener with SO_REUSEPORT for each worker, of which the master
has a duplicate, as recluster has) shuts the listener of a worker that has died: `close` without
migration, `sysctl` with net.ipv4.tcp_migrate_req, `bpf` with a program for
BPF_SK_REUSEPORT_SELECT_OR_MIGRATE. `recluster` is examples/asyncio_server.py under it.

Two questions. *Waiting*: a worker is stopped, a few connect, it is killed; how long after that has
who waited in its lane an answer, where nobody else comes; and where others come all the while.
Needs CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN (a network namespace).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import EXAMPLES, Master, arguments, free_port, machine, spread
from row import own

SYS_BPF = 321  # x86_64
ATTACH_REUSEPORT_EBPF, REUSEPORT_SOCKARRAY, SK_REUSEPORT, SELECT_OR_MIGRATE = 52, 20, 21, 40
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
WORKERS, WAITING, DEADLINE = 4, 12, 10.0
WAYS = ("close", "sysctl", "bpf", "recluster")
libc = ctypes.CDLL(None, use_errno=True)


# ---- the kernel's way -----------------------------------------------------------------------


def bpf(command: int, attributes: bytes) -> int:
    memory = ctypes.create_string_buffer(attributes, 128)
    made: int = libc.syscall(SYS_BPF, command, memory, 128)
    if made < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return made


def operation(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def program(lanes: int) -> int:
    """One of the lanes at random, and the next where that is none; of a request that moves too."""
    text = operation(0xBF, 6, 1)  # r6 = r1
    text += operation(0x85, value=7)  # bpf_get_prandom_u32
    text += operation(0xBF, 7, 0)
    tries = []
    for _ in range(WORKERS):
        tries.append(
            operation(0x57, 7, value=WORKERS - 1)  # r7 &= 3
            + operation(0x63, 10, 7, -4)  # *(u32 *)(r10 - 4) = r7
            + operation(0xBF, 1, 6)
            + operation(0x18, 2, 1, value=lanes)
            + operation(0)  # r2 = the map
            + operation(0xBF, 3, 10)
            + operation(0x07, 3, value=-4)
            + operation(0xB7, 4)
            + operation(0x85, value=82)  # bpf_sk_select_reuseport
            + operation(0x07, 7, value=1)
        )
    each = len(tries[0]) // 8 + 1
    for number, one in enumerate(tries):
        left = (WORKERS - number - 1) * each
        text += one + operation(0x15, 0, offset=left + 2)  # 0: it was chosen
    text += operation(0xB7, 0, value=0) + operation(0x95)  # drop
    text += operation(0xB7, 0, value=1) + operation(0x95)  # pass
    code, licence = ctypes.create_string_buffer(text), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("<IIQQIIQII16sII", SK_REUSEPORT, len(text) // 8,
                             ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0,
                             b"moves", 0, SELECT_OR_MIGRATE)  # fmt: skip
    return bpf(5, attributes)


def put(lanes: int, slot: int, listener: socket.socket) -> None:
    key, value = ctypes.c_uint32(slot), ctypes.c_uint64(listener.fileno())
    bpf(2, struct.pack("<IIQQQ", lanes, 0, ctypes.addressof(key), ctypes.addressof(value), 0))


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
    writer.close()


async def serve(listener: socket.socket, slot: int) -> None:
    server = await asyncio.start_server(answer, sock=listener)
    os.write(1, f"{slot} {os.getpid()}\n".encode())
    await server.serve_forever()


def bare(way: str, port: int) -> None:
    """A master that says "SLOT PID" of each worker that serves, until its input ends."""
    lanes = bpf(0, struct.pack("<IIII", REUSEPORT_SOCKARRAY, 4, 8, WORKERS)) if way == "bpf" else -1
    moves = program(lanes) if way == "bpf" else -1
    listeners: dict[int, socket.socket] = {}
    slots: dict[int, int] = {}

    def start(slot: int) -> None:
        one = listeners[slot] = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", port))
        if way == "bpf" and len(listeners) == 1:  # the group's
            one.setsockopt(socket.SOL_SOCKET, ATTACH_REUSEPORT_EBPF, moves)
        one.listen(1024)
        if way == "bpf":
            put(lanes, slot, one)
        if (pid := os.fork()) == 0:
            for other, theirs in listeners.items():
                if other != slot:
                    theirs.close()
            asyncio.run(serve(one, slot))
        slots[os.pidfd_open(pid)] = slot

    for slot in range(WORKERS):
        start(slot)
    while True:
        ready = select.select([0, *slots], [], [])[0]
        if 0 in ready:
            for pidfd in slots:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return
        for pidfd in ready:
            slot = slots.pop(pidfd)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
            listeners[slot].shutdown(socket.SHUT_RDWR)  # what waits there moves, or is reset
            listeners.pop(slot).close()
            start(slot)


class Bare:
    def __init__(self, way: str, port: int) -> None:
        Path("/proc/sys/net/ipv4/tcp_migrate_req").write_text("1" if way == "sysctl" else "0")
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--bare", way, "--port", str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def next(self) -> tuple[int, int]:
        assert self._process.stdout
        slot, pid = self._process.stdout.readline().split()
        return int(slot), int(pid)

    def stop(self) -> None:
        self._process.communicate()


class Ours:
    def __init__(self, port: int) -> None:
        words = ["asyncio_server.py", str(port)]
        self._master = Master(
            words, workers=WORKERS, cwd=EXAMPLES, log=subprocess.DEVNULL,
            options=["--respawn", "0"],
        )  # fmt: skip

    def next(self) -> tuple[int, int]:
        said = self._master.events.until(lambda said: said["event"] == "ready", 60.0)
        return said["slot"], said["pid"]

    def stop(self) -> None:
        self._master.stop()


# ---- clients --------------------------------------------------------------------------------


def asked(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), DEADLINE)
    client.sendall(REQUEST)
    return client


def whole(client: socket.socket) -> bool:
    """False: it was reset, or nothing has come for so long."""
    with client, contextlib.suppress(OSError):
        return b" 200 " in client.recv(4096)
    return False


class Others(threading.Thread):
    """Somebody else asks, a connection for each request, until it is stopped."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port, self._over = port, False
        self.start()

    def run(self) -> None:
        while not self._over:
            with contextlib.suppress(OSError):
                whole(asked(self._port))
            time.sleep(0.01)

    def stop(self) -> None:
        self._over = True
        self.join()


def round_(port: int, victim: int) -> tuple[list[float], int]:
    """Ms after the kill of each that waited in the victim's lane and was answered; the lost."""
    os.kill(victim, signal.SIGSTOP)
    clients = [asked(port) for _ in range(WAITING)]
    waiting = clients
    until = time.monotonic() + 0.3
    while waiting and (left := until - time.monotonic()) > 0:
        for client in select.select(waiting, [], [], left)[0]:
            waiting = [one for one in waiting if one is not client]
            whole(client)
    killed, took, lost = time.monotonic(), list[float](), 0
    os.kill(victim, signal.SIGKILL)
    while waiting:
        left = killed + DEADLINE - time.monotonic()
        ready = select.select(waiting, [], [], max(left, 0))[0]
        for client in ready or waiting:
            waiting = [one for one in waiting if one is not client]
            if ready and whole(client):
                took.append((time.monotonic() - killed) * 1000)
            else:
                client.close()
                lost += 1
    return took, lost


def one(way: str, rounds: int, others: bool) -> None:
    port = free_port()
    tool = Ours(port) if way == "recluster" else Bare(way, port)
    took, lost = list[float](), 0
    try:
        pids = dict(tool.next() for _ in range(WORKERS))
        beside = Others(port) if others else None
        try:
            for _ in range(rounds):
                some, missed = round_(port, pids[1])
                took, lost = took + some, lost + missed
                slot, pid = tool.next()
                pids[slot] = pid
        finally:
            if beside:
                beside.stop()
    finally:
        tool.stop()
    waited = f"{spread(took, 1)} ms, longest {max(took):.0f}" if took else "none answered"
    print(
        f"{way:10} {'others come' if others else 'nobody else':12} {len(took) + lost:4} waited in "
        f"the dead lane: {waited}; lost {lost}",
        flush=True,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        return bare(given.bare, given.port)
    print(machine())
    own()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for way in given.only:
        for others in (False, True):
            one(way, given.rounds, others)
    return None


if __name__ == "__main__":
    main()
