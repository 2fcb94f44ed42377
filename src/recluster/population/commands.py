"""What the population asks for: each a fact to bring about, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import events


@dataclass(frozen=True)
class Spawn:
    worker: int
    slot: int
    generation: int
    heir_of: int
    party: int = 0  # workers of one party share their lanes; 0: it has its own


@dataclass(frozen=True)
class Inherit:
    """The worker `heir_of` has died: this one, on its way, gets the lanes it leaves, if it
    has not listened there yet."""

    worker: int
    heir_of: int


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
class Ask:
    """GET `ready_url` from it, on a connection of its own, and call `answered`."""

    worker: int


@dataclass(frozen=True)
class Leave:
    """Send the stop signal."""

    worker: int


@dataclass(frozen=True)
class Move:
    """Give its connections to others, all or none, and then send the stop signal. `quiet`, in
    seconds: what nothing has moved on for so long is over."""

    worker: int
    quiet: float


@dataclass(frozen=True)
class GiveUp:
    """What waits for it is for others from now on, where they can receive it."""

    worker: int


@dataclass(frozen=True)
class Abort:
    """Send SIGABRT: a Python worker writes its stack, and ends."""

    worker: int


@dataclass(frozen=True)
class Kill:
    worker: int


@dataclass(frozen=True)
class EndStrays:
    """End what a dead worker has left in the background: SIGTERM, or SIGKILL."""

    worker: int
    kill: bool


@dataclass(frozen=True)
class Inspect:
    """Gather Facts about it and call `inspected`."""

    worker: int


@dataclass(frozen=True)
class Measure:
    """Find out how much memory it has and how many connections it got, and call `measured`."""

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
class Refuse:
    """Whether who connects to that address, which no worker has claimed, is refused."""

    address: str
    on: bool


@dataclass(frozen=True)
class FindDeaf:
    """Find out which lanes this worker, alive, has given up."""

    worker: int


@dataclass(frozen=True)
class Audit:
    """Find out where this worker listens though no door has seen it, and call `unseen`."""

    worker: int


@dataclass(frozen=True)
class Notice:
    """Something to tell. `worker`: the number of the one it is about, or 0."""

    event: events.Event
    worker: int = 0

    @property
    def name(self) -> str:
        return self.event.name


@dataclass(frozen=True)
class Ended:
    code: int


Command = (
    Spawn
    | Inherit
    | Live
    | Retired
    | Disconnect
    | Ask
    | Leave
    | Move
    | GiveUp
    | Abort
    | Kill
    | EndStrays
    | Inspect
    | Measure
    | Release
    | CloseLanes
    | Hold
    | Refuse
    | FindDeaf
    | Audit
    | Notice
    | Ended
)
