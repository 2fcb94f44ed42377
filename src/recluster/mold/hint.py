"""Without --preload: told once, of a program that would gain by it."""

from __future__ import annotations

import os

from ..child.launch import Program
from ..events.view import Worker
from ..options import Options
from ..output.eventlog import EventLog
from ..population.commands import Notice
from .target import can_be

LONG = 1.0  # seconds of CPU time of one boot


def _cpu(pid: int) -> float:
    """Of that process; 0 where it cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Hint:
    """`workers`: those the cluster knows."""

    def __init__(
        self,
        program: Program,
        options: Options,
        workers: dict[int, Worker],
        eventlog: EventLog,
    ) -> None:
        wanted = "preload" not in options.given and options.workers > 1
        self._wanted = wanted and can_be(program)
        self._workers = workers
        self._eventlog = eventlog

    def noticed(self, notice: Notice, now: float) -> None:
        if not self._wanted or notice.name != "ready":
            return
        self._wanted = False  # one worker is as good as another
        worker = self._workers.get(notice.worker)
        took = _cpu(worker.pid) if worker and worker.pid else 0.0
        if took >= LONG:
            self._eventlog.line(
                f"a worker's boot takes {took:.1f} s of CPU time: with --preload auto each "
                "generation imports once for all workers"
            )
