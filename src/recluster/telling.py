"""What is to be told: to the log, to who waits for a reload, to the user's callbacks.

Owns the handles of the reloads under way. Everything is told in this order, so that a
callback finds in the log, in its worker and in its handle what it is told.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from . import commands
from .events import NOTICED, Emitter, Event
from .handle import ReloadHandle
from .lifecycle import ENDED
from .population import Population
from .story import Story, signal_name
from .view import Worker

Finished = Callable[[ReloadHandle], object]


class Telling:
    """`workers`: those the cluster knows. `emitter`: the user's callbacks."""

    def __init__(self, population: Population, workers: dict[int, Worker], story: Story) -> None:
        self.emitter = Emitter(self._report_callback)
        self._population = population
        self._workers = workers
        self._story = story
        self._reloads: dict[int, tuple[ReloadHandle, Finished | None]] = {}

    def expect(self, handle: ReloadHandle, callback: Finished | None) -> None:
        """The handle is told how its reload goes, and the callback when it is over."""
        self._reloads[handle.number] = (handle, callback)

    def notice(self, notice: commands.Notice) -> None:
        details = dict(notice.details)
        worker = self._workers.get(notice.worker)
        if worker is not None:
            self._show(worker, ended=notice.name == "exit")
        self._story.tell(notice.name, str(worker or ""), details)
        if notice.name == "exit" and details["signal"] is not None:
            details["signal"] = signal_name(details["signal"])
        if notice.name == "canary":
            self._on_probation(details)
        if notice.name == "reload":
            self._finish_reload(details)
        if notice.name in NOTICED:
            details.pop("was", None)
            details.pop("number", None)
            self.emit(notice.name, notice.worker, details)

    def emit(self, name: str, key: int, details: dict[str, Any]) -> None:
        self.emitter.emit(Event(name, self._workers.get(key), details))

    def _show(self, worker: Worker, ended: bool) -> None:
        member = self._population.members.get(worker.key)
        if member is not None:
            worker.state = member.state.value
            worker.ready = member.ready_at is not None and member.state not in ENDED
        worker.alive = not ended

    def _on_probation(self, details: dict[str, Any]) -> None:
        handle, _ = self._reloads.get(details["number"], (None, None))
        if handle is not None:
            handle.on_probation = True
            if handle.on_serving is not None:
                self.emitter.guarded(handle.on_serving, handle)

    def _finish_reload(self, details: dict[str, Any]) -> None:
        handle, callback = self._reloads.pop(details["number"], (None, None))
        if handle is not None:
            handle.finish(details)
            if callback is not None:
                self.emitter.guarded(callback, handle)

    def _report_callback(self, name: str, error: BaseException) -> None:
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        self._story.line(f"callback {name} raised {last}")
