"""The log: the master's own lines, on its standard error or in a file, never waited for.

A line is one write(2), which the workers' own output does not cut (pipe(7), PIPE_BUF).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..base.levels import ERROR, LEVELS
from ..base.watcher import Watcher
from ..options import Options
from ..start.doors import ClusterError
from .eventlog import Out, said
from .recent import Recent
from .streams import File, Standard, Stream

if TYPE_CHECKING:
    import logging

    AnyLogger = logging.Logger | logging.LoggerAdapter[Any]


class Log:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._file = options.log_file
        wanted = options.log_format
        self._own: Stream = File(self._file, wanted) if self._file else Standard("stderr", wanted)
        self._out = self._own if self._file else Standard("stdout", wanted)
        self.recent = Recent() if options.prefix else None

    def output(self, stream: str, line: bytes, fields: dict[str, Any], ends: bool) -> None:
        """What a worker has written to that stream of its own."""
        to, now = self._own if stream == "stderr" else self._out, time.time()
        to.look()
        to.put(to.format.output(line, fields, ends, now) + b"\n")
        if self.recent is not None:
            self.recent.put(now, line, fields, ends)

    @property
    def lines_lost(self) -> int:
        return sum(stream.lines_lost for stream in self._streams)

    @property
    def idle(self) -> bool:
        return all(stream.idle for stream in self._streams)

    def line(self, level: int, text: str, fields: dict[str, Any]) -> None:
        if level >= LEVELS[self._options.log_level]:
            own = self._own
            own.look()
            now = time.time()
            line = own.format.line(level, text, fields, now)
            own.put(f"{line}\n".encode(own.encoding, "backslashreplace"))
            if self.recent is not None:
                self.recent.put_own(now, level, text, fields)

    def reopen(self) -> None:
        """Raises OSError; then the lines go where they went."""
        self._own.reopen()

    @property
    def _streams(self) -> tuple[Stream, ...]:
        return (self._own,) if self._out is self._own else (self._own, self._out)

    def attach(self, watcher: Watcher) -> None:
        try:
            for stream in self._streams:
                stream.attach(watcher)
        except OSError as error:
            raise ClusterError(f"log_file: {self._file}: {error.strerror}") from None

    def detach(self) -> None:
        for stream in self._streams:
            stream.detach()

    def abandon(self) -> None:
        for stream in self._streams:
            stream.abandon()

    def close(self, patience: float) -> None:
        for stream in self._streams:
            stream.close(patience)


def to_logger(logger: AnyLogger) -> Out:
    """For a program that has loggers: an event's fields are the record's `recluster`."""

    def out(level: int, text: str, fields: dict[str, Any]) -> None:
        logger.log(level, "%s", text, extra={"recluster": fields})

    return out


def complain(options: Options, text: str) -> None:
    """One line, on standard error, of a master that could not begin."""
    own = Standard("stderr", options.log_format)
    own.look()
    line = own.format.line(ERROR, text, said(None, None, 0, {}), time.time())
    own.put(f"{line}\n".encode(own.encoding, "backslashreplace"))
    own.close(0.0)
