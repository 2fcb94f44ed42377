"""Without --preload: told once, of a program that would gain by it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..events.view import Worker
from ..output.eventlog import EventLog
from ..population.commands import Notice

LONG = 1.0  # seconds of CPU time of one boot


def _cpu(pid: int) -> float:
    """Of that process; 0 where it cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(eq=False)
class Hint:
    """`workers`: those the cluster knows."""

    workers: dict[int, Worker]
    eventlog: EventLog
    wanted: bool

    def noticed(self, notice: Notice, now: float) -> None:
        if not self.wanted or notice.name != "ready":
            return
        self.wanted = False  # one worker is as good as another
        worker = self.workers.get(notice.worker)
        took = _cpu(worker.pid) if worker and worker.pid else 0.0
        if took >= LONG:
            self.eventlog.line(
                f"a worker's boot takes {took:.1f} s of CPU time: with --preload auto each "
                "generation imports once for all workers"
            )
