"""Where lines go: a standard stream, whatever it is at that moment, or a file that is opened
anew when asked. Never waited for, and each knows the format that fits it."""

from __future__ import annotations

import os
import sys
import time

from ..base.levels import WARNING
from ..base.watcher import Watcher
from .formats import Text, choose, is_journal
from .outlet import open_outlet
from .sink import Sink

# O_NONBLOCK: a FIFO that nobody reads is an error, and not a reason to wait.
TO_A_FILE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class Stream:
    """`put` takes whole lines, newline included."""

    encoding = "utf-8"

    def __init__(self, wanted: str) -> None:
        self.format: Text = choose(wanted, journal=False, terminal=False)
        self._wanted = wanted
        self._sink: Sink | None = None
        self._watcher: Watcher | None = None
        self._closed = False
        self._lost_before = 0  # by sinks that are closed

    @property
    def lines_lost(self) -> int:
        """Ever."""
        return self._lost_before + (self._sink.lines_lost if self._sink else 0)

    @property
    def idle(self) -> bool:
        return self._sink is None or self._sink.idle

    def look(self) -> None:
        """Before a line is made: `format` and `encoding` are those of now."""

    def put(self, line: bytes) -> None:
        if self._sink is not None:
            self._sink.put(line)

    def reopen(self) -> None:
        """Raises OSError; then all is as before."""

    def lost(self, count: int) -> bytes:
        """The line that tells of so many."""
        text = f"{count} {'line' if count == 1 else 'lines'} lost"
        fields = {"event": "lost", "slot": None, "pid": os.getpid(), "lines": count}
        return f"{self.format.line(WARNING, text, fields, time.time())}\n".encode()

    def _change(self, sink: Sink | None, patience: float = 0.0) -> None:
        if self._sink is not None:
            self._sink.close(patience)
            self._lost_before += self._sink.lines_lost
        self._sink = sink
        if sink is not None and self._watcher is not None:
            sink.attach(self._watcher)

    def attach(self, watcher: Watcher) -> None:
        self._watcher = watcher
        if self._sink is not None:
            self._sink.attach(watcher)

    def detach(self) -> None:
        self._watcher = None
        if self._sink is not None:
            self._sink.detach()

    def abandon(self) -> None:
        if self._sink is not None:
            self._sink.abandon()

    def close(self, patience: float) -> None:
        self._closed = True
        if self._sink is not None:
            self._sink.close(patience)
            self._sink = None


class Standard(Stream):
    """Of a program that may give its streams another meaning at any time. Without one
    there is nobody to tell."""

    def __init__(self, name: str, wanted: str) -> None:
        super().__init__(wanted)
        self._name = name
        self._known: tuple[int, int, int] | None = None

    def look(self) -> None:
        if self._closed:
            return
        stream = getattr(sys, self._name)
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            fd = stream.fileno()
            found = os.fstat(fd)
        except (OSError, ValueError, AttributeError):
            self._change(None)
            self._known = None
            return
        now = fd, found.st_dev, found.st_ino
        if now != self._known:
            self._known = None
            self._change(None)
            self.format = choose(
                self._wanted,
                journal=is_journal(found.st_dev, found.st_ino, os.environ),
                terminal=os.isatty(fd) and _has_colours(),
            )
            try:
                self._change(Sink(open_outlet(fd), self.lost))
            except OSError:  # no descriptor left: the next line tries again
                return
            self._known = now


def _has_colours() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class File(Stream):
    """Appended to, so who truncates it (logrotate's copytruncate) finds the next line at its
    beginning. Opened at `attach`, which raises OSError."""

    def __init__(self, path: str, wanted: str) -> None:
        super().__init__(wanted)
        self.path = path

    def attach(self, watcher: Watcher) -> None:
        super().attach(watcher)
        self.reopen()

    def reopen(self) -> None:
        fd = os.open(self.path, TO_A_FILE, 0o644)
        try:
            outlet = open_outlet(fd)
        except OSError:
            os.close(fd)
            raise
        outlet.keeps(fd)
        self._change(Sink(outlet, self.lost))
