"""Callbacks by event name. One that raises is reported and never breaks supervision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..events import NAMES, Event
from ..host.loops import Tasks, is_coroutine_function

Callback = Callable[[Any], object]


class Emitter:
    """`report` gets the name of a callback, and what it raised."""

    def __init__(self, report: Callable[[str, BaseException], None]) -> None:
        self._callbacks: dict[str, list[Callback]] = {name: [] for name in NAMES}
        self._report = report
        self.tasks = Tasks(self._failed)

    def check(self, name: object) -> None:
        if name not in self._callbacks:
            raise ValueError(f"event: {name!r} is not one of {', '.join(NAMES)}")

    def on(self, name: str, callback: Callback) -> None:
        self.check(name)
        if not callable(callback):
            raise TypeError(f"callback: {callback!r} cannot be called")
        self._callbacks[name].append(callback)

    def off(self, name: str, callback: Callback) -> None:
        """Take back one `on`; nothing happens if there is none."""
        if callback in self._callbacks.get(name, ()):
            self._callbacks[name].remove(callback)

    def emit(self, event: Event) -> None:
        for callback in list(self._callbacks[event.name]):
            self.guarded(callback, event)

    def guarded(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            result = callback(*arguments)
        except Exception as error:  # the user's own; supervision goes on
            self._failed(callback, error)
            return
        if hasattr(type(result), "__await__"):
            self.tasks.run(callback, result)

    def refuse_coroutines(self) -> None:
        """Where no loop will ever await them. Raises TypeError."""
        for name, callbacks in self._callbacks.items():
            for callback in callbacks:
                if is_coroutine_function(callback):
                    raise TypeError(
                        f"callback: {_name_of(callback)}, for {name!r}, is a coroutine function: "
                        "drive the cluster by `async with`"
                    )

    def _failed(self, callback: object, error: BaseException) -> None:
        self._report(_name_of(callback), error)


def _name_of(callback: object) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)
