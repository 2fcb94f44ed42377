"""What workers write to their standard streams, line by line, told with their slot.

Owns the ends of the pipes that are read (csrc/process/output.c), each until the worker and all that
it has started have closed it. A line that is longer than LONGEST is told in pieces; one that
is not ended is kept until it is, or its worker has ended. The kernel keeps what is not read
yet, so the last words of a worker are heard after its end, and before its end is told.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

from .. import _engine
from ..base.watcher import Watcher
from ..events.view import Worker
from .eventlog import said

LONGEST = 16384  # bytes of one line
AT_ONCE = 65536  # of one pipe in one turn: who floods is heard in its turn, as all are
LAST_WORDS_MOST = 64  # such looks, at an end: a child that lives on may go on writing

Tell = Callable[[str, bytes, dict[str, Any], bool], None]


class Pipe:
    """`stream` is "stdout" or "stderr"."""

    def __init__(self, fd: int, worker: Worker, stream: str, tell: Tell) -> None:
        self.fd = fd
        self.worker = worker
        self.stream = stream
        self._tell = tell
        self.rest = b""

    def read(self) -> bool | None:
        """Once. False: there is nothing now; None: nor will there be."""
        try:
            data = os.read(self.fd, AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        while len(self.rest) > LONGEST:
            self._say(self.rest[:LONGEST], ends=False)
            self.rest = self.rest[LONGEST:]
        return True if data else None

    def flush(self) -> None:
        """What has no end yet."""
        rest, self.rest = self.rest, b""
        if rest:
            self._say(rest)

    def _say(self, line: bytes, *, ends: bool = True) -> None:
        fields = {**said(None, self.worker, 0, {}), "stream": self.stream}
        while len(line) > LONGEST:
            self._tell(self.stream, line[:LONGEST], fields, False)
            line = line[LONGEST:]
        self._tell(self.stream, line, fields, ends)


class Pipes:
    """`workers`: those the cluster knows, by key. One of the cluster's outputs."""

    lines_lost = 0  # the kernel keeps what is not read
    idle = True  # what was read of a line is handed on

    def __init__(self, workers: dict[int, Worker], tell: Tell) -> None:
        self._workers = workers
        self._tell = tell
        self._watcher: Watcher | None = None
        self._pipes: dict[int, Pipe] = {}  # by descriptor

    def open(self, engine: _engine.Engine, key: int) -> None:
        """Before that worker is born. Raises OSError."""
        if self._watcher is None:
            return
        for stream, fd in zip(("stdout", "stderr"), engine.output(key), strict=True):
            pipe = self._pipes[fd] = Pipe(fd, self._workers[key], stream, self._tell)
            self._watcher.watch(fd, functools.partial(self._readable, pipe))

    def last_words(self, key: int) -> None:
        """Its process has ended. What it has started may have the pipe yet."""
        for pipe in [one for one in self._pipes.values() if one.worker.key == key]:
            self._drain(pipe)

    def _drain(self, pipe: Pipe) -> None:
        for _ in range(LAST_WORDS_MOST):
            more = pipe.read()
            if more is None:
                self._end(pipe)
            if not more:
                break
        pipe.flush()

    def _readable(self, pipe: Pipe) -> None:
        if self._pipes.get(pipe.fd) is pipe and pipe.read() is None:
            self._end(pipe)

    def _end(self, pipe: Pipe) -> None:
        pipe.flush()
        if self._pipes.pop(pipe.fd, None) is not None:
            if self._watcher is not None:
                self._watcher.unwatch(pipe.fd)
            os.close(pipe.fd)

    # ---- for the master that takes this one's place -----------------------------------

    def carried(self) -> list[tuple[int, int, str, str]]:
        """Each pipe: its descriptor, worker and stream, and what of a line was read."""
        return [
            (pipe.fd, pipe.worker.key, pipe.stream, pipe.rest.hex())
            for pipe in self._pipes.values()
        ]

    def resume(self, before: Iterable[tuple[int, int, str, str]]) -> None:
        """Raises OSError."""
        for fd, key, stream, rest in before:
            os.set_inheritable(fd, False)
            pipe = self._pipes[fd] = Pipe(fd, self._workers[key], stream, self._tell)
            pipe.rest = bytes.fromhex(rest)
            if self._watcher is not None:
                self._watcher.watch(fd, functools.partial(self._readable, pipe))

    # ---- as an output ------------------------------------------------------------------

    def attach(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def detach(self) -> None:
        """At the end of the cluster: what was written is heard."""
        for pipe in list(self._pipes.values()):
            self._drain(pipe)
            self._end(pipe)
        self._watcher = None

    def abandon(self) -> None:
        """In a forked worker: these are others' words."""
        for fd in self._pipes:
            os.close(fd)
        self._pipes.clear()

    def reopen(self) -> None:
        """They are nobody's files."""

    def close(self, patience: float) -> None:
        self.detach()
