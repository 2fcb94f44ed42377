"""--events: each event of the cluster as one line of JSON, in the log's own schema.

To an inherited descriptor, to a file, or to standard output (`-`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from ..events import Event
from ..options.checks import OptionError
from .eventlog import said
from .formats import stamp
from .outlet import open_outlet
from .sink import Sink
from .streams import File, Standard


def _line_of(fields: dict[str, Any]) -> bytes:
    return json.dumps({"time": stamp(time.time(), "T"), **fields}).encode() + b"\n"


def _lost(count: int) -> bytes:
    return _line_of({"event": "lost", "events": count})


class _File(File):
    def lost(self, count: int) -> bytes:
        return _lost(count)


class _Output(Standard):
    def lost(self, count: int) -> bytes:
        return _lost(count)


class EventLines:
    """To `where`: a number, `-` or a path. `sink` is an output of the master; `given` are
    descriptors that are the master's alone. Raises OptionError."""

    def __init__(self, where: str, generation: Callable[[], int]) -> None:
        self._generation = generation
        self.given: list[int] = []
        self.sink: Sink | _File | _Output
        if where == "-":
            self.sink = _Output("stdout", "json")
        elif where.isascii() and where.isdigit():
            self.sink = self._descriptor(int(where))
        elif where:
            self.sink = _File(os.path.abspath(where), "json")
        else:
            raise OptionError("--events: give a descriptor, a path or -")

    def _descriptor(self, fd: int) -> Sink:
        try:
            sink = Sink(open_outlet(fd), _lost)
            if fd > 2:  # else it is the workers' as well
                os.set_inheritable(fd, False)
                self.given.append(fd)
        except (OSError, OverflowError):
            raise OptionError(f"--events: descriptor {fd} is not open") from None
        return sink

    def write(self, event: Event) -> None:
        line = _line_of(said(event.name, event.worker, self._generation(), event.details))
        if isinstance(self.sink, Standard):
            self.sink.look()
        self.sink.put(line)
