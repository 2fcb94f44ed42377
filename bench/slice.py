"""How late a thread wakes that has a short slice, beside one that has the usual one:
python bench/slice.py [--hogs 8] [--rounds 4]

Each in a session of its own with busy processes (3 ms of work, 0.5 ms of sleep, as workers
are), it sleeps for 1 ms again and again. What csrc/load/slice.c gives the master while it looks
at workers. Linux 6.12; before, both rows are the same.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import statistics
import struct
import sys
import time

from common import arguments, machine

SCHED_SETATTR, SCHED_GETATTR = {"x86_64": (314, 315), "aarch64": (274, 275)}[platform.machine()]
SHORT_NS = 100_000  # SLICE_NS of slice.c
SIZE, RUNTIME_AT = 48, 24  # of struct sched_attr
LIBC = ctypes.CDLL(None)


def set_slice(ns: int) -> None:
    now = ctypes.create_string_buffer(SIZE)
    LIBC.syscall(SCHED_GETATTR, 0, now, SIZE, 0)
    struct.pack_into("=I", now, 0, SIZE)
    struct.pack_into("=Q", now, RUNTIME_AT, ns)
    LIBC.syscall(SCHED_SETATTR, 0, now, 0)


def work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.003:
            pass
        time.sleep(0.0005)
    os._exit(0)


def lateness(ns: int, hogs: int, seconds: float) -> list[float]:
    """In ms."""
    os.setsid()
    pids = []
    for _ in range(hogs):
        pid = os.fork()
        if pid == 0:
            work(seconds + 5)
        pids.append(pid)
    set_slice(ns)
    late = []
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        time.sleep(0.001)
        late.append((time.monotonic() - now) * 1000 - 1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return sorted(late)


def one(ns: int, hogs: int, seconds: float) -> tuple[float, float]:
    """p90 and p99, of a process that has no other history."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        late = lateness(ns, hogs, seconds)
        os.write(writer, struct.pack("dd", late[len(late) * 9 // 10], late[len(late) * 99 // 100]))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        found = struct.unpack("dd", file.read())
    os.waitpid(pid, 0)
    return found[0], found[1]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--hogs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each")
    given = parser.parse_args()
    print(machine())
    found: dict[str, list[tuple[float, float]]] = {"short": [], "usual": []}
    for _ in range(given.rounds):
        for name, ns in (("short", SHORT_NS), ("usual", 0)):
            found[name].append(one(ns, given.hogs, given.seconds))
    for name, rows in found.items():
        p90, p99 = zip(*rows, strict=True)
        each = ", ".join(f"{value:.1f}" for value in p99)
        print(
            f"{name}: late by p90 {statistics.median(p90):.1f} ms, "
            f"p99 {statistics.median(p99):.1f} ms (each: {each})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
