"""`Cluster.on`: each name with its class of event, for whoever checks types.

The overloads are made of `events.EVENTS` (`overloads`; a test compares).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import events

if TYPE_CHECKING:
    from typing import Literal, Protocol, TypeVar, overload

    from .supervisor import Supervisor

    E = TypeVar("E", bound=events.Event)
    T = TypeVar("T")
    Takes = Callable[[E], object]

    class Decorator(Protocol[E]):
        def __call__(self, callback: Callable[[E], T], /) -> Callable[[E], T]: ...


def overloads() -> str:
    lines = []
    for one in events.EVENTS:
        event, kind = f'event: Literal["{one.name}"]', f"events.{one.__name__}"
        lines += [
            "        @overload",
            f"        def on(self, {event}, callback: Takes[{kind}]) -> None: ...",
            "        @overload",
            f"        def on(self, {event}) -> Decorator[{kind}]: ...",
        ]
    return "\n".join(lines)


class Callbacks:
    """The part of a Cluster that events are told to."""

    _core: Supervisor

    if TYPE_CHECKING:

        @overload
        def on(self, event: Literal["online"], callback: Takes[events.Online]) -> None: ...
        @overload
        def on(self, event: Literal["online"]) -> Decorator[events.Online]: ...
        @overload
        def on(self, event: Literal["listening"], callback: Takes[events.Listening]) -> None: ...
        @overload
        def on(self, event: Literal["listening"]) -> Decorator[events.Listening]: ...
        @overload
        def on(self, event: Literal["ready"], callback: Takes[events.Ready]) -> None: ...
        @overload
        def on(self, event: Literal["ready"]) -> Decorator[events.Ready]: ...
        @overload
        def on(self, event: Literal["hung"], callback: Takes[events.Hung]) -> None: ...
        @overload
        def on(self, event: Literal["hung"]) -> Decorator[events.Hung]: ...
        @overload
        def on(self, event: Literal["takes"], callback: Takes[events.Takes]) -> None: ...
        @overload
        def on(self, event: Literal["takes"]) -> Decorator[events.Takes]: ...
        @overload
        def on(self, event: Literal["deaf"], callback: Takes[events.Deaf]) -> None: ...
        @overload
        def on(self, event: Literal["deaf"]) -> Decorator[events.Deaf]: ...
        @overload
        def on(self, event: Literal["unseen"], callback: Takes[events.Unseen]) -> None: ...
        @overload
        def on(self, event: Literal["unseen"]) -> Decorator[events.Unseen]: ...
        @overload
        def on(self, event: Literal["shared"], callback: Takes[events.Shared]) -> None: ...
        @overload
        def on(self, event: Literal["shared"]) -> Decorator[events.Shared]: ...
        @overload
        def on(self, event: Literal["failing"], callback: Takes[events.Failing]) -> None: ...
        @overload
        def on(self, event: Literal["failing"]) -> Decorator[events.Failing]: ...
        @overload
        def on(self, event: Literal["message"], callback: Takes[events.Message]) -> None: ...
        @overload
        def on(self, event: Literal["message"]) -> Decorator[events.Message]: ...
        @overload
        def on(self, event: Literal["disconnect"], callback: Takes[events.Disconnect]) -> None: ...
        @overload
        def on(self, event: Literal["disconnect"]) -> Decorator[events.Disconnect]: ...
        @overload
        def on(self, event: Literal["exit"], callback: Takes[events.Exit]) -> None: ...
        @overload
        def on(self, event: Literal["exit"]) -> Decorator[events.Exit]: ...
        @overload
        def on(self, event: Literal["hold"], callback: Takes[events.Hold]) -> None: ...
        @overload
        def on(self, event: Literal["hold"]) -> Decorator[events.Hold]: ...
        @overload
        def on(self, event: Literal["unclaimed"], callback: Takes[events.Unclaimed]) -> None: ...
        @overload
        def on(self, event: Literal["unclaimed"]) -> Decorator[events.Unclaimed]: ...
        @overload
        def on(self, event: Literal["canary"], callback: Takes[events.Canary]) -> None: ...
        @overload
        def on(self, event: Literal["canary"]) -> Decorator[events.Canary]: ...
        @overload
        def on(self, event: Literal["waiting"], callback: Takes[events.Waiting]) -> None: ...
        @overload
        def on(self, event: Literal["waiting"]) -> Decorator[events.Waiting]: ...
        @overload
        def on(self, event: Literal["reload"], callback: Takes[events.Reload]) -> None: ...
        @overload
        def on(self, event: Literal["reload"]) -> Decorator[events.Reload]: ...
        @overload
        def on(self, event: Literal["recycle"], callback: Takes[events.Recycle]) -> None: ...
        @overload
        def on(self, event: Literal["recycle"]) -> Decorator[events.Recycle]: ...
        @overload
        def on(self, event: Literal["upgraded"], callback: Takes[events.Upgraded]) -> None: ...
        @overload
        def on(self, event: Literal["upgraded"]) -> Decorator[events.Upgraded]: ...
        @overload
        def on(self, event: Literal["end"], callback: Takes[events.End]) -> None: ...
        @overload
        def on(self, event: Literal["end"]) -> Decorator[events.End]: ...
        @overload
        def on(self, event: type[E], callback: Takes[E]) -> None: ...
        @overload
        def on(self, event: type[E]) -> Decorator[E]: ...
        @overload
        def on(self, event: events.EventName, callback: Takes[events.Event]) -> None: ...
        def on(self, event: Any, callback: Any = None) -> Any: ...

        def off(
            self, event: events.EventName | type[events.Event], callback: Callable[[Any], object]
        ) -> None: ...

    else:

        def on(self, event, callback=None):
            """Call `callback` with each event of that name (or class: `events.Exit`).

            Without a callback it is a decorator: `@cluster.on("exit")`. Coroutine functions
            are run by the asyncio loop that runs, as tasks; a failure is logged. Raises
            ValueError for a name that is no event's, TypeError for what cannot be called.
            """
            name = event.name if isinstance(event, type) else event
            if callback is not None:
                return self._core.publisher.emitter.on(name, callback)
            self._core.publisher.emitter.check(name)

            def decorate(callback):
                self._core.publisher.emitter.on(name, callback)
                return callback

            return decorate

        def off(self, event, callback):
            """Take an `on` back. Nothing happens if there was none."""
            name = event.name if isinstance(event, type) else event
            self._core.publisher.emitter.off(name, callback)
