"""What the kernel knows of a worker's processes: memory, CPU time, descriptors (proc(5)).

A worker is its leader and what descends from it: under `npm start` the server is a child.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
PROCESSES_MOST = 64  # of one worker that are looked at
THREADS_MOST = 64  # of one process whose children are looked for


@dataclass
class Facts:
    """`cpu`: seconds, of children that have ended and were waited for too; `fds`: open
    descriptors, None before Linux 6.2 or without the right to look; `pss`: see Census."""

    pids: list[int]
    rss: int = 0
    cpu: float = 0.0
    fds: int | None = None
    pss: int | None = None


def read(path: str, most: int = 4096) -> bytes:
    """Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def _children(pid: int, threads: int) -> list[int]:
    """Of all of its threads: who forks is the parent."""
    tasks: list[str | int] = [pid]
    if threads > 1:
        tasks = list(os.listdir(f"/proc/{pid}/task")[:THREADS_MOST])
    found: list[int] = []
    for task in tasks:
        found += map(int, read(f"/proc/{pid}/task/{task}/children").split())
    return found


def facts_of(leader: int) -> Facts | None:
    """None if it has ended. (Its number is its own until the master has reaped it.)"""
    facts, left = Facts([]), [leader]
    while left and len(facts.pids) < PROCESSES_MOST:
        pid = left.pop()
        try:
            fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            facts.cpu += sum(map(int, fields[11:15])) * TICK
            facts.rss += int(fields[21]) * PAGE
            facts.pids.append(pid)
            facts.fds = _plus(facts.fds, os.stat(f"/proc/{pid}/fd").st_size)
            left += _children(pid, int(fields[17]))
        except (OSError, ValueError, IndexError):  # it ends in this moment, or is not ours
            continue
    return facts if leader in facts.pids else None


def _plus(count: int | None, more: int) -> int | None:
    return (count or 0) + more if more else count


def proportional(pids: list[int]) -> int | None:
    """Memory where a page that n processes share counts as 1/n of it (PSS), in bytes; None
    if it cannot be read."""
    total = 0
    for pid in pids:
        try:
            text = read(f"/proc/{pid}/smaps_rollup")
            at = text.index(b"\nPss:")
            total += int(text[at + 5 : text.index(b"kB", at)]) * 1024
        except (OSError, ValueError):
            if pid == pids[0]:
                return None
    return total or None
