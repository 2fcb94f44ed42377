"""What is to be told: to the log, to who waits for a reload, to the user's callbacks.

Owns the handles of the reloads under way. Everything is told in this order, so that a
callback finds in the log, in its worker and in its handle what it is told.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .. import events
from ..base.levels import ERROR
from ..events.view import Worker
from ..host.handle import ReloadHandle, finish
from ..metrics.tally import Tally
from ..output.eventlog import EventLog
from ..population import commands
from ..population.lifecycle import ENDED
from ..population.state import Population
from .emitter import Emitter

Finished = Callable[[ReloadHandle], object]


@dataclass(eq=False)
class Publisher:
    """`workers`: those the cluster knows. `emitter`: the user's callbacks."""

    population: Population
    workers: dict[int, Worker]
    eventlog: EventLog
    tally: Tally

    def __post_init__(self) -> None:
        self.emitter = Emitter(self._report_callback)
        self.at_exit: list[Callable[[int], object]] = []
        """Called when a worker has ended, before that is told."""
        self._reloads: dict[int, tuple[ReloadHandle, tuple[Finished, ...]]] = {}

    def expect(self, handle: ReloadHandle, *callbacks: Finished) -> None:
        """The handle is told how its reload goes, and the callbacks when it is over."""
        self._reloads[handle.number] = (handle, callbacks)

    def notice(self, notice: commands.Notice) -> None:
        event = notice.event
        if isinstance(event, events.Exit):
            for call in self.at_exit:
                call(notice.worker)
        if isinstance(event, events.Waiting):
            event = replace(event, workers=self._waited_for())
        worker = self.workers.get(notice.worker)
        if worker is not None:
            self._show(worker, ended=isinstance(event, events.Exit))
            event = replace(event, worker=worker)
        self.tally.notice(event, notice.worker)
        self.tell(event)

    def tell(self, event: events.Event) -> None:
        try:
            self.eventlog.tell(event)
        finally:  # an error in the log keeps nobody waiting
            if isinstance(event, events.Canary):
                self._on_probation(event)
            if isinstance(event, events.Reload):
                self._finish_reload(event)
            if event.public:
                self.emitter.emit(event)

    def _waited_for(self) -> list[events.Waited]:
        """The workers that a shutdown waits for, and what they have open (None: not known)."""
        people = self.population.members
        return [
            {"id": worker.id, "pid": worker.pid, "connections": people[key].connections}
            for key, worker in sorted(self.workers.items())
            if key in people and people[key].state not in ENDED
        ]

    def message(self, key: int, message: Any) -> None:
        self.emitter.emit(events.Message(message, worker=self.workers.get(key)))

    def _show(self, worker: Worker, ended: bool) -> None:
        member = self.population.members.get(worker.key)
        if member is not None:
            worker.state = member.state.value
            worker.ready = member.ready_at is not None and member.state not in ENDED
        worker.alive = not ended

    def _on_probation(self, event: events.Canary) -> None:
        handle, _ = self._reloads.get(event.number, (None, ()))
        if handle is not None:
            handle.on_probation = True
            if handle.on_serving is not None:
                self.emitter.guarded(handle.on_serving, handle)

    def _finish_reload(self, event: events.Reload) -> None:
        handle, callbacks = self._reloads.pop(event.number, (None, ()))
        if handle is not None:
            finish(handle, event)
            for callback in callbacks:
                self.emitter.guarded(callback, handle)

    def give_up_waiting(self) -> None:
        """The cluster has ended: whoever waits for a reload is told."""
        for number, (handle, _) in sorted(self._reloads.items()):
            why = "the cluster has ended"
            self._finish_reload(
                events.Reload(False, False, why, handle.generation, 0.0, {}, number=number)
            )

    def _report_callback(self, name: str, error: BaseException) -> None:
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        self.eventlog.line(f"callback {name} raised {last}", ERROR)
