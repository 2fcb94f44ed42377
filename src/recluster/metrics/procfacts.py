"""What the kernel knows of a worker's processes: memory, CPU time, descriptors (proc(5)).

A worker is its leader and what descends from it: under `npm start` the server is a child.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from .._engine import Engine

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
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


def facts_of(engine: Engine, keys: Iterable[int]) -> dict[int, Facts]:
    """Of workers that have ended, or cannot be looked at, there are none."""
    found = engine.usage(keys)
    return {key: Facts(pids, rss, cpu * TICK, fds or None) for key, pids, rss, cpu, fds in found}


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
