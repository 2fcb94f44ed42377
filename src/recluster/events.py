"""Callbacks by event name. One that raises is reported and never breaks supervision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .view import Worker

NOTICED = (
    "online",
    "listening",
    "ready",
    "hung",
    "takes",
    "deaf",
    "disconnect",
    "exit",
    "hold",
    "canary",
    "reload",
)
NAMES = (*NOTICED, "message", "end")


@dataclass(frozen=True)
class Event:
    """What a callback gets.

    `worker` is None for `hold`, `canary`, `reload` and `end`. `details` by event: listening,
    deaf (it listens there no more): `address`; ready: `seconds`; hung (it takes no
    connections, though some wait): `queued`; takes (again): `seconds`; message:
    `message`; hold: `address`, `held`, `seconds` (without a worker); exit: `code` or `signal`
    (a name, "SIGKILL"), `lived` (seconds), `next_try` (seconds or None), `error`
    (last line of its traceback, if known); canary: `generation`, `part`; reload:
    `ok`, `why`, `generation`, `seconds`, `verdicts`; end: `code`. Each is
    an attribute too: `event.address`.
    """

    name: str
    worker: Worker | None
    details: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["details"][name]
        except KeyError:
            raise AttributeError(name) from None


Callback = Callable[[Event], object]


class Emitter:
    def __init__(self, report: Callable[[str, BaseException], None]) -> None:
        self._callbacks: dict[str, list[Callback]] = {name: [] for name in NAMES}
        self._report = report

    def on(self, name: str, callback: Callback) -> None:
        if name not in self._callbacks:
            raise ValueError(f"event: {name!r} is not one of {', '.join(NAMES)}")
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
            callback(*arguments)
        except Exception as error:  # the user's own; supervision goes on
            self._report(getattr(callback, "__qualname__", repr(callback)), error)
