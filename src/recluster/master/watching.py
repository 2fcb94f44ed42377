"""--watch: a reload when files change, which a process of its own tells (watcher.py).

Owns that process: it begins with the cluster and ends with it. The master only reads lines of
it when there are some.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

from ..base.levels import ERROR
from ..base.watcher import Watcher
from ..child.launch import Program
from ..host.asked import Asked
from ..options import Options
from ..options.checks import OptionError

WATCHER = os.path.join(os.path.dirname(__file__), "watcher.py")
PYTHON = ("*.py",)
SOURCES = (
    *PYTHON,
    *("*.js", "*.mjs", "*.cjs", "*.ts", "*.jsx", "*.tsx", "*.json", "*.rb", "*.php", "*.ex"),
    *("*.go", "*.rs", "*.html", "*.toml", "*.yaml", "*.yml"),
)
"""Of a COMMAND, whose language is not known: what a program writes while it runs is not among
them, or it would reload itself for ever."""
NAMED_MOST = 3
LONGEST = 1 << 20


INSTALL = "it needs watchfiles: python -m pip install 'recluster[watch]'"


def has_watchfiles() -> bool:
    """Without importing it: it is the watcher's."""
    return PathFinder.find_spec("watchfiles") is not None


def changed_line(paths: list[str], cwd: str) -> str:
    """app.py and 2 more have changed."""
    named = [os.path.relpath(path, cwd) for path in paths[:NAMED_MOST]]
    more = len(paths) - len(named)
    text = ", ".join(named) + (f" and {more} more" if more else "")
    return f"{text} {'has' if len(paths) == 1 else 'have'} changed"


def wanted(options: Options, program: Program) -> dict[str, Any] | None:
    """What the watcher is told to look at; None without --watch. Raises OptionError."""
    if not options.watch:
        return None
    if not has_watchfiles():
        raise OptionError(f"watch: {INSTALL}")
    cwd = os.path.realpath(program.cwd())
    paths = [os.path.join(cwd, path) for path in options.watch]
    for path in paths:
        if not os.path.exists(path):
            raise OptionError(f"watch: there is no {path}")
    usual = SOURCES if program.target.kind == "command" else PYTHON
    ours = [options.log_file] if options.log_file else []
    return {
        "cwd": cwd,
        "paths": [os.path.realpath(path) for path in paths],
        "include": list(options.watch_include or usual),
        "exclude": [*options.watch_exclude, *ours],
    }


class Watching:
    """One of a cluster's outputs, though it is an input: attached at its start, and so on."""

    lines_lost = 0
    idle = True

    def __init__(self, wanted: dict[str, Any], asked: Asked, line: Callable[..., object]) -> None:
        self._wanted = wanted
        self._cwd = wanted["cwd"]
        self._asked = asked
        self._line = line
        self._process = -1  # a pidfd
        self._ends: tuple[int, ...] = ()  # read here, and what it reads
        self._rest = b""
        self._watcher: Watcher | None = None

    def attach(self, watcher: Watcher) -> None:
        """Raises OSError."""
        out, theirs = os.pipe2(os.O_CLOEXEC)
        hold, line = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(out, False)
        self._ends = (out, line)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-u", WATCHER, json.dumps(self._wanted)],
                # WORKER_ID: it is nobody's whom a dead worker has left (csrc/process/strays.c).
                {**os.environ, "WORKER_ID": "watcher"},
                file_actions=[(os.POSIX_SPAWN_DUP2, hold, 0), (os.POSIX_SPAWN_DUP2, theirs, 1)],
                setpgroup=0,  # a terminal's ^C is not for it
                setsigdef=[signal.SIGINT, signal.SIGPIPE],
            )
        finally:
            os.close(theirs)
            os.close(hold)
        self._process = os.pidfd_open(pid)
        self._watcher = watcher
        watcher.watch(out, self._readable)

    def _readable(self) -> None:
        """A reload may fork: nothing here has a `finally`."""
        try:
            data = os.read(self._ends[0], 65536)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > LONGEST:
            self._line("the watcher has ended: changes are not seen any more", ERROR)
            self.detach()
            return
        said = [json.loads(line) for line in lines]
        changed = sorted({path for one in said for path in one.get("changed", ())})
        if {} in said:
            shown = ", ".join(os.path.relpath(path, self._cwd) for path in self._wanted["paths"])
            self._line(f"watching {shown} ({' '.join(self._wanted['include'])})")
        if changed and not self._asked.closing:
            self._line(changed_line(changed, self._cwd))
            self._asked.reload()

    def detach(self) -> None:
        if self._ends and self._watcher is not None:
            self._watcher.unwatch(self._ends[0])
        process, self._process = self._process, -1
        if process >= 0:
            with contextlib.suppress(OSError):  # a subreaper has waited for it
                signal.pidfd_send_signal(process, signal.SIGKILL)
                os.waitid(os.P_PIDFD, process, os.WEXITED)
            os.close(process)
        self.abandon()

    def abandon(self) -> None:
        ends, self._ends = self._ends, ()
        process, self._process = self._process, -1
        for end in (*ends, process):
            if end >= 0:
                os.close(end)

    def reopen(self) -> None:
        """It has no file."""

    def close(self, patience: float) -> None:
        self.detach()
