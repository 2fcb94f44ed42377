"""--events: each event of the cluster as one line of JSON, in the log's own schema.

To an inherited descriptor, to a file, or to standard output (`-`).
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from ..events import NAMES, Event
from ..options.checks import OptionError
from .eventlog import said
from .formats import stamp
from .outlet import open_outlet
from .sink import Sink
from .streams import File, Standard

if TYPE_CHECKING:
    from ..cluster import Cluster


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


def _descriptor(cluster: Cluster, fd: int) -> Sink:
    try:
        sink = Sink(open_outlet(fd), _lost)
        if fd > 2:  # else it is the workers' as well
            os.set_inheritable(fd, False)
            cluster._given_fds.append(fd)
            cluster._on_fork.append(lambda: os.close(fd))
    except (OSError, OverflowError):
        raise OptionError(f"--events: descriptor {fd} is not open") from None
    return sink


def write_events(cluster: Cluster, where: str) -> None:
    """`where`: a number, `-` or a path. Raises OptionError."""
    sink: Sink | _File | _Output
    if where == "-":
        sink = _Output("stdout", "json")
    elif where.isascii() and where.isdigit():
        sink = _descriptor(cluster, int(where))
    elif where:
        sink = _File(os.path.abspath(where), "json")
    else:
        raise OptionError("--events: give a descriptor, a path or -")
    cluster._outputs.append(sink)

    def write(event: Event) -> None:
        generation = cluster._population.generation
        line = _line_of(said(event.name, event.worker, generation, event.details))
        if isinstance(sink, Standard):
            sink.look()
        sink.put(line)

    for name in NAMES:
        cluster.on(name, write)
