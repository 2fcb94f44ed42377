"""What the population asks for: each a fact to bring about, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spawn:
    worker: int
    slot: int
    generation: int
    heir_of: int
    party: int = 0  # workers of one party share their lanes; 0: it has its own


@dataclass(frozen=True)
class Live:
    """From now on exactly these workers' lanes get new connections, by weight: 1
    where `weights` does not say."""

    workers: frozenset[int]
    weights: dict[int, float] = field(hash=False, default_factory=dict)


@dataclass(frozen=True)
class Retired:
    """Note what is on its way to these workers, which are live no more."""

    workers: tuple[int, ...]


@dataclass(frozen=True)
class Disconnect:
    """Tell it over its channel that it is retired."""

    worker: int


@dataclass(frozen=True)
class Leave:
    """Send the stop signal."""

    worker: int


@dataclass(frozen=True)
class Abort:
    """Send SIGABRT: a Python worker writes its stack, and ends."""

    worker: int


@dataclass(frozen=True)
class Kill:
    worker: int


@dataclass(frozen=True)
class Inspect:
    """Gather Facts about it and call `inspected`."""

    worker: int


@dataclass(frozen=True)
class Release:
    """Forget a worker that is gone, and drop its lanes."""

    worker: int


@dataclass(frozen=True)
class CloseLanes:
    """Take no new connection anywhere; finish what has begun."""


@dataclass(frozen=True)
class Hold:
    """Whether lanes that no worker holds stop taking connections at that address."""

    address: str
    on: bool


@dataclass(frozen=True)
class FindDeaf:
    """Find out which lanes this worker, alive, has given up."""

    worker: int


@dataclass(frozen=True)
class Notice:
    """Something to tell: the event's name, the worker, details."""

    name: str
    worker: int
    details: dict[str, Any] = field(hash=False, default_factory=dict)


@dataclass(frozen=True)
class Ended:
    code: int


Command = (
    Spawn
    | Live
    | Retired
    | Disconnect
    | Leave
    | Abort
    | Kill
    | Inspect
    | Release
    | CloseLanes
    | Hold
    | FindDeaf
    | Notice
    | Ended
)
