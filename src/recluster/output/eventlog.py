"""What the log says: one line per lifecycle event."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..base.levels import DEBUG, INFO, WARNING
from ..base.text import one_line
from ..base.wording import seconds
from ..events import Event, Exit, Online
from ..events.view import Worker
from ..options import Options

if TYPE_CHECKING:
    from ..population.state import Population

Out = Callable[[int, str, dict[str, Any]], None]  # level, text, fields


def said(
    name: str | None, worker: Worker | None, generation: int, details: Mapping[str, Any]
) -> dict[str, Any]:
    """An event as the log and --events tell it. About no worker: `slot` is null, `pid` the
    master's, `generation` the one that serves, where the details name no other."""
    fields: dict[str, Any] = {} if name is None else {"event": name}
    if worker is not None:
        fields.update(slot=worker.id, generation=worker.generation, pid=worker.pid)
    else:
        fields.update(slot=None, generation=generation, pid=os.getpid())
    return {**fields, **details}


class EventLog:
    """Turns notices into lines, and hands each with its level and fields to `out`.
    `generation`: the one that serves, for lines that are about no worker."""

    def __init__(self, options: Options, out: Out, generation: Callable[[], int]) -> None:
        self._out = out
        self._options = options
        self._generation = generation
        self._said: set[str] = set()
        self._early: list[tuple[Any, ...]] | None = None

    def line(self, text: str, level: int = INFO, worker: Worker | None = None) -> None:
        """With a worker, it is about that one."""
        self._say(level, f"{worker}: {text}" if worker else text, None, worker, {})

    def warn(self, text: str) -> None:
        self.line(text, WARNING)

    def once(
        self, topic: str, text: str, level: int = WARNING, worker: Worker | None = None
    ) -> None:
        """For what would repeat while a shortage lasts; `over` ends it."""
        if topic not in self._said:
            self._said.add(topic)
            self.line(text, level, worker)

    def waits(self) -> None:
        """What is said from now on comes after the first line (`begins`)."""
        self._early = []

    def begins(self, command: str, name: str | None, path: str | None) -> None:
        """The first line: what somebody wants to know who finds only the log. `path`: of the
        control socket."""
        from .. import __version__

        called = f", name {name}" if name else ""
        where = f"control {path}" if path else "no control socket"
        text = f"version {__version__}, pid {os.getpid()}{called}, {where}: {command}"
        more = {"version": __version__, "name": name, "control": path, "command": command}
        early, self._early = self._early or [], None
        self._say(INFO, text, "begin", None, more)
        for one in early:
            self._say(*one)

    def goes_on(self) -> None:
        """Instead of a first line: that one was another program's."""
        early, self._early = self._early or [], None
        for one in early:
            self._say(*one)

    def closes(self, people: Population) -> None:
        """Said once, by whatever way it was asked for."""
        most, delay = self._options.shutdown_timeout, self._options.shutdown_delay
        later = f" after {seconds(delay)} of delay" if delay else ""
        if not people.closing:
            self.once("closing", f"shutting down{later}: workers have {most:g} s", INFO)

    def reloads(self, generation: int, slots: int) -> None:
        how = " slot by slot" if self._options.surge else ""
        who = "its worker is" if slots == 1 else f"its {slots} workers are"
        self.line(f"reloading: generation {generation} serves{how} when {who} ready")

    def over(self, topic: str) -> None:
        self._said.discard(topic)

    def _say(
        self,
        level: int,
        text: str,
        name: str | None,
        worker: Worker | None,
        details: Mapping[str, Any],
    ) -> None:
        if self._early is not None:
            self._early.append((level, text, name, worker, details))
        else:
            self._out(level, one_line(text), said(name, worker, self._generation(), details))

    def tell(self, event: Event) -> None:
        level, topic = event.level, event.topic
        if isinstance(event, Exit) and not (self._options.log["respawns"] or event.asked):
            level = DEBUG
        if isinstance(event, Online):
            self.over("spawn")
        text = event.line()
        if text and topic not in self._said:
            if topic is not None:
                self._said.add(topic)
            if event.worker and event.named:
                text = f"{event.worker}: {text}"
            self._say(level, text, event.name, event.worker, event.details)
        if isinstance(event, Exit) and event.hint:
            self.once("hint", event.hint)
