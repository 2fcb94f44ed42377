"""What the population asks for: each a fact to bring about, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import events


class Command:
    """The base of all."""


@dataclass(frozen=True)
class OfWorker(Command):
    worker: int


@dataclass(frozen=True)
class Spawn(Command):
    worker: int
    slot: int
    generation: int
    heir_of: int
    party: int = 0  # workers of one party share their lanes; 0: it has its own


@dataclass(frozen=True)
class Inherit(Command):
    """The worker `heir_of` has died: this one, on its way, gets the lanes it leaves, if it
    has not listened there yet."""

    worker: int
    heir_of: int


@dataclass(frozen=True)
class Live(Command):
    """From now on exactly these workers' lanes get new connections, by weight: 1
    where `weights` does not say."""

    workers: frozenset[int]
    weights: dict[int, float] = field(hash=False, default_factory=dict)


@dataclass(frozen=True)
class Retired(Command):
    """Note what is on its way to these workers, which are live no more."""

    workers: tuple[int, ...]


class Disconnect(OfWorker):
    """Tell it over its channel that it is retired."""


class Ask(OfWorker):
    """GET `ready_url` from it, on a connection of its own, and call `answered`."""


class Leave(OfWorker):
    """Send the stop signal."""


@dataclass(frozen=True)
class Move(Command):
    """Give its connections to others, all or none, and then send the stop signal. `quiet`, in
    seconds: what nothing has moved on for so long is over."""

    worker: int
    quiet: float


class GiveUp(OfWorker):
    """What waits for it is for others from now on, where they can receive it."""


class Abort(OfWorker):
    """Send SIGABRT: a Python worker writes its stack, and ends."""


class Kill(OfWorker):
    """End it at once."""


@dataclass(frozen=True)
class EndStrays(Command):
    """End what a dead worker has left in the background: SIGTERM, or SIGKILL."""

    worker: int
    kill: bool


class Inspect(OfWorker):
    """Gather Facts about it and call `inspected`."""


class Measure(OfWorker):
    """Find out how much memory it has and how many connections it got, and call `measured`."""


class Release(OfWorker):
    """Forget a worker that is gone, and drop its lanes."""


@dataclass(frozen=True)
class CloseLanes(Command):
    """Take no new connection anywhere; finish what has begun."""


@dataclass(frozen=True)
class Hold(Command):
    """Whether lanes that no worker holds stop taking connections at that address."""

    address: str
    on: bool


@dataclass(frozen=True)
class Refuse(Command):
    """Whether who connects to that address, which no worker has claimed, is refused."""

    address: str
    on: bool


class FindDeaf(OfWorker):
    """Find out which lanes this worker, alive, has given up."""


class Audit(OfWorker):
    """Find out where this worker listens though no door has seen it, and call `unseen`."""


@dataclass(frozen=True)
class Notice(Command):
    """Something to tell. `worker`: the number of the one it is about, or 0."""

    event: events.Event
    worker: int = 0

    @property
    def name(self) -> str:
        return self.event.name


@dataclass(frozen=True)
class Ended(Command):
    code: int
