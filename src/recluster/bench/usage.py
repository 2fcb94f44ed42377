"""CPU time of the master and of the workers with all below them, as the kernel counts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from .identify import descendants

TICK = os.sysconf("SC_CLK_TCK")


def single_threaded(pid: int) -> float:
    """Seconds, to the nanosecond. Of the first thread only; a master has no other."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9
    return whole([pid])


def whole(pids: Iterable[int]) -> float:
    """Seconds, to the tick (10 ms): with ended threads and children, and living children."""
    total = 0
    for pid in pids:
        for one in [pid, *descendants(pid)]:
            with contextlib.suppress(OSError), open(f"/proc/{one}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))
    return total / TICK
