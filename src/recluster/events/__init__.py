"""Every event: the one place where its name, its fields, its level and its line are written.

Of these come what callbacks get, the log, `--events`, and the table in docs/library.md.
May import base only.
"""

from __future__ import annotations

from typing import Literal, get_args

from .clusters import Baking as Baking
from .clusters import Canary as Canary
from .clusters import End as End
from .clusters import Failing as Failing
from .clusters import GaveUp as GaveUp
from .clusters import Hold as Hold
from .clusters import Hurried as Hurried
from .clusters import NothingToRun as NothingToRun
from .clusters import Reload as Reload
from .clusters import RestartTogether as RestartTogether
from .clusters import Shared as Shared
from .clusters import Unclaimed as Unclaimed
from .clusters import Upgraded as Upgraded
from .clusters import Waited as Waited
from .clusters import Waiting as Waiting
from .event import Event as Event
from .workers import Deaf as Deaf
from .workers import Disconnect as Disconnect
from .workers import Dropped as Dropped
from .workers import Exit as Exit
from .workers import Hung as Hung
from .workers import Listening as Listening
from .workers import Message as Message
from .workers import Online as Online
from .workers import Overdue as Overdue
from .workers import Ready as Ready
from .workers import Recycle as Recycle
from .workers import Relief as Relief
from .workers import SpawnFailed as SpawnFailed
from .workers import Takes as Takes
from .workers import Unseen as Unseen

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
