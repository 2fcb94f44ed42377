"""Hooks: commands that run when something has happened (--on EVENT=COMMAND).

Owns which of them run and which wait. Invariants: the master never waits for one, but at its
end for END_PATIENCE; of all at most RUNNING_MOST run, each for SECONDS at most, and at most
WAITING_MOST wait; what is left out is told.
"""

from __future__ import annotations

import functools
import json
import os
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..base.levels import DEBUG, INFO, WARNING
from ..base.text import one_line
from ..base.watcher import Watcher
from ..events import Event
from ..options.hookspec import Wanted
from ..output.eventlog import EventLog, said
from ..population.state import Population
from ..start.inherit import VARIABLES as SOCKETS
from ..systemd.sdnotify import VARIABLES
from .emitter import Emitter
from .hookrun import Run

NOT_FOR_HOOKS = frozenset((*VARIABLES, *SOCKETS))
RUNNING_MOST = 8
WAITING_MOST = 64
SECONDS = 30.0
END_PATIENCE = 5.0
KILLED_MOST = 1.0  # seconds until somebody who was killed has ended
VALUE_MOST = 4096  # characters of a variable; standard input has all
SHOWN_MOST = 60  # characters of a command


def environment(fields: Mapping[str, Any]) -> dict[str, str]:
    """The master's, without what a service manager tells it alone, and the event's."""
    environ = {name: value for name, value in os.environ.items() if name not in NOT_FOR_HOOKS}
    environ["RECLUSTER_MASTER_PID"] = str(os.getpid())
    environ["RECLUSTER_EVENT"] = fields["event"]
    for key, value in fields.items():
        if key == "event":
            continue
        told = "" if value is None else value
        if isinstance(told, bool):
            told = int(told)
        if not isinstance(told, (str, int, float)):
            told = json.dumps(told)
        short = str(told).replace("\0", "")
        if len(short) <= VALUE_MOST:
            environ[f"RECLUSTER_EVENT_{key.upper()}"] = short
    return environ


class Hooks:
    """`say` gets a line and its level. Attends to the pump, and is one of the outputs of
    the cluster: attached, detached and closed with them."""

    lines_lost = 0

    def __init__(self, on: Wanted, say: Callable[[str, int], None]) -> None:
        self._on = on
        self._say = say
        self._running: list[tuple[Run, str, str, float]] = []  # event, command, begun at
        self._waiting: deque[tuple[str, str, dict[str, Any]]] = deque()
        self._left_out = 0
        self._watcher: Watcher | None = None

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def happened(self, name: str, fields: dict[str, Any]) -> None:
        """`fields`: as --events tells it."""
        for event, command in self._on:
            if event != name:
                continue
            if len(self._waiting) >= WAITING_MOST:
                self._left_out += 1
                if self._left_out == 1:
                    self._say(
                        f"hooks: {RUNNING_MOST} run and {WAITING_MOST} wait: more are left out",
                        WARNING,
                    )
            else:
                self._waiting.append((name, command, fields))
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < RUNNING_MOST:
            event, command, fields = self._waiting.popleft()
            line = json.dumps(fields).encode() + b"\n"
            tell = functools.partial(self._told, event)
            try:
                run = Run(command, environment(fields), line, tell)
            except (OSError, ValueError) as error:
                self._say(f"hook {event}: cannot be started: {error}", WARNING)
                continue
            self._running.append((run, event, command, time.monotonic()))
            try:
                self._watch(run)
            except OSError as error:
                self._put_down(run, event, f"cannot be watched: {error}")
        if self._left_out and not self._waiting:
            self._say(f"hooks: {self._left_out} were left out", WARNING)
            self._left_out = 0

    def _told(self, event: str, line: str) -> None:
        self._say(f"hook {event}: {one_line(line)}", INFO)

    def _watch(self, run: Run) -> None:
        """Raises OSError."""
        if self._watcher is not None:
            self._watcher.watch(run.output, functools.partial(self._printed, run))
            if run.pidfd >= 0:
                self._watcher.watch(run.pidfd, self._look_at_all)

    def _unwatch(self, run: Run) -> None:
        if self._watcher is not None:
            for fd in (run.output, run.pidfd):
                self._watcher.unwatch(fd)

    def _printed(self, run: Run) -> None:
        run.read()
        if run.is_silent and self._watcher is not None:
            self._watcher.unwatch(run.output)
        self._look_at_all()

    def _look_at_all(self) -> None:
        for one in [one for one in self._running if one[0].has_ended()]:
            self._ended(*one)
        self._start()

    def _ended(self, run: Run, event: str, command: str, begun: float) -> None:
        self._running = [one for one in self._running if one[0] is not run]
        self._unwatch(run)
        code = run.end()
        what = f"killed after {SECONDS:g} s" if run.killed else "was killed"
        if code is not None:
            what = f"exit code {code} after {time.monotonic() - begun:.1f} s"
        short = one_line(command)
        short = short if len(short) <= SHOWN_MOST else f"{short[:SHOWN_MOST]}..."
        self._say(f"hook {event}: {what}: {short}", WARNING if code else DEBUG)

    # ---- a clock of the pump's -------------------------------------------------------

    def look(self) -> None:
        """Nothing to do: each has its descriptors."""

    def deadline(self) -> float | None:
        times = [begun + SECONDS for run, _, _, begun in self._running if not run.killed]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        for run, _, _, begun in self._running:
            if now >= begun + SECONDS:
                run.kill()

    # ---- with the outputs of a cluster -------------------------------------------------

    def attach(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def detach(self) -> None:
        for run, _, _, _ in self._running:
            self._unwatch(run)
        self._watcher = None

    def abandon(self) -> None:
        """In a forked child: they are its parent's."""
        for run, _, _, _ in self._running:
            run.close()
        self._running.clear()
        self._waiting.clear()

    def reopen(self) -> None:
        """There is no file."""

    def close(self, patience: float) -> None:
        """The end: what runs, and what waits, has END_PATIENCE."""
        self.detach()
        until = time.monotonic() + END_PATIENCE
        self._look_at_all()
        while self._running and (left := until - time.monotonic()) > 0:
            waiting = select.poll()
            for run, _, _, _ in self._running:
                waiting.register(run.pidfd, select.POLLIN)
                if not run.is_silent:
                    waiting.register(run.output, select.POLLIN)
            waiting.poll(left * 1000)
            for run, _, _, _ in self._running:
                run.read()
            self._look_at_all()
        self._waiting.clear()
        for run, event, command, _ in self._running:
            self._put_down(run, event, f"killed at the end: {one_line(command)[:SHOWN_MOST]}")

    def _put_down(self, run: Run, event: str, why: str) -> None:
        """It is killed, which does not take long."""
        self._running = [one for one in self._running if one[0] is not run]
        self._say(f"hook {event}: {why}", WARNING)
        self._unwatch(run)
        run.kill()
        if run.pidfd >= 0:
            ended = select.poll()
            ended.register(run.pidfd, select.POLLIN)
            ended.poll(KILLED_MOST * 1000)
        run.end()


def open_hooks(
    on: Wanted, population: Population, eventlog: EventLog, emitter: Emitter
) -> Hooks | None:
    """None if nobody wants any."""
    if not on:
        return None
    hooks = Hooks(on, eventlog.line)

    def happened(event: Event) -> None:
        fields = said(event.name, event.worker, population.generation, event.details)
        hooks.happened(event.name, fields)

    for name in dict(on):
        emitter.on(name, happened)
    return hooks
