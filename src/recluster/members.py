"""The population's nouns: a worker, a slot, a reload. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field

from .backoff import Backoff
from .lifecycle import State


@dataclass(eq=False)
class Member:
    """One worker."""

    id: int
    slot: int
    generation: int
    born: float
    heir_of: int = 0
    relief: int = 0  # n-th attempt to serve a queue whose worker died; 0: a normal worker
    state: State = State.STARTING
    ready_at: float | None = None
    deadline: float | None = None
    look_at: float | None = None
    retired_at: float = 0.0
    settle_until: float = 0.0
    draining_since: float = 0.0
    leaving: bool = False  # said disconnect, or ended well: to be replaced at once
    addresses: set[str] = field(default_factory=set)  # where it listens
    closed: set[str] = field(default_factory=set)  # where it does not any more
    error: str | None = None  # the last line of its traceback, if it told
    overdue: bool = False
    hung_since: float | None = None  # it takes no connections, though some wait


@dataclass(eq=False)
class Slot:
    index: int
    backoff: Backoff
    wanted: bool = True
    serving: Member | None = None
    incoming: Member | None = None
    previous: Member | None = None  # kept ready while the serving one bakes
    chain: list[Member] = field(default_factory=list)  # died here, not yet replaced
    spawn_at: float | None = None
    surplus: bool = False  # goes at the cutover that is under way


@dataclass
class Reload:
    """`batch`: slots whose new workers are on their way, `unborn` those of them
    that are still to be spawned; `todo`: slots after them (a rolling reload);
    `switched`: those that have the new generation; `canary`: the part of new
    connections it gets on probation; `bake_until`: how long it is on probation,
    None: until somebody decides."""

    generation: int
    began: float
    number: int
    verdicts: dict[int, str] = field(default_factory=dict)
    batch: set[int] = field(default_factory=set)
    unborn: list[int] = field(default_factory=list)
    todo: list[int] = field(default_factory=list)
    switched: set[int] = field(default_factory=set)
    before: set[str] = field(default_factory=set)  # addresses of the old generation
    after: set[str] = field(default_factory=set)
    canary: float | None = None
    bake_until: float | None = None
