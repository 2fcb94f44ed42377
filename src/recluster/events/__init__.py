"""Every event: the one place where its name, its fields, its level and its line are written.

Of these come what callbacks get, the log, `--events`, and the table in docs/library.md.
May import base only.
"""

from __future__ import annotations

from typing import Literal, get_args

from .clusters import (
    Baking,
    Canary,
    End,
    Failing,
    GaveUp,
    Hold,
    Hurried,
    NothingToRun,
    Reload,
    RestartTogether,
    Shared,
    Unclaimed,
    Upgraded,
    Waited,
    Waiting,
)
from .event import Event
from .workers import (
    Deaf,
    Disconnect,
    Dropped,
    Exit,
    Hung,
    Listening,
    Message,
    Online,
    Overdue,
    Ready,
    Recycle,
    Relief,
    SpawnFailed,
    Takes,
    Unseen,
)

EventName = Literal[
    "online",
    "listening",
    "ready",
    "hung",
    "takes",
    "deaf",
    "unseen",
    "shared",
    "failing",
    "message",
    "disconnect",
    "exit",
    "hold",
    "unclaimed",
    "canary",
    "waiting",
    "reload",
    "recycle",
    "upgraded",
    "end",
]
"""The names of those that callbacks get, as type checkers know them."""

NAMES: tuple[EventName, ...] = get_args(EventName)

EVERY = {one.name: one for one in Event.__subclasses__()}
EVENTS = tuple(EVERY[name] for name in NAMES)
"""Those that callbacks get."""

LOGGED = tuple(one for one in EVERY.values() if not one.public)
"""Those that only the log tells of."""


def table() -> str:
    """The events as docs/library.md shows them (a test compares)."""
    rows = ["| event | class | fields | meaning |", "| --- | --- | --- | --- |"]
    for one in EVENTS:
        shape = ", ".join(f"`{name}`" for name in one.shape())
        meaning = " ".join((one.__doc__ or "").split())
        rows.append(f"| `{one.name}` | `{one.__name__}` | {shape} | {meaning} |")
    return "\n".join(rows)


__all__ = [
    "EVENTS",
    "LOGGED",
    "NAMES",
    "Baking",
    "Canary",
    "Deaf",
    "Disconnect",
    "Dropped",
    "End",
    "Event",
    "EventName",
    "Exit",
    "Failing",
    "GaveUp",
    "Hold",
    "Hung",
    "Hurried",
    "Listening",
    "Message",
    "NothingToRun",
    "Online",
    "Overdue",
    "Ready",
    "Recycle",
    "Relief",
    "Reload",
    "RestartTogether",
    "Shared",
    "SpawnFailed",
    "Takes",
    "Unclaimed",
    "Unseen",
    "Upgraded",
    "Waited",
    "Waiting",
    "table",
]
