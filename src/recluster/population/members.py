"""The population's nouns: a worker, a slot, a reload. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..base.states import State
from .backoff import Backoff


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
    served_at: float | None = None  # since when it serves
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
    ask_at: float | None = None  # when it is asked (again) whether it is ready
    refusal: str | None = None  # what it said last
    proving: bool = False  # listens where it has not been seen to accept yet
    unseen: set[str] = field(default_factory=set)  # listens there, and no door has seen it
    spoken: bool = False  # it has sent a message on its channel
    listened: bool = False  # it has listened somewhere: it is a server
    left_at: float | None = None  # when it was sent the stop signal
    told: bool = False  # that was done already (Move)
    move_at: float = 0.0  # when its connections may be moved (again)
    moves: int = 0  # how often that was tried
    urged: bool = False  # gets the stop signal once more, if it owes no answer
    connections: int | None = None  # when it was last looked at; None: not known
    strays: bool = False  # it went to the background, and has left some
    failures_before: int = 0  # in a row, when it became ready
    left_waiting: bool = False  # it died with clients in its lanes whom nobody else can take
    lasts: float = 1.0  # its part of the limits after which it is recycled
    hung_since: float | None = None  # it takes no connections, though some wait

    @property
    def leaves(self) -> bool:
        """It serves less than it should, or will: to be replaced first."""
        return self.leaving or bool(self.closed)

    @property
    def only_unix(self) -> bool:
        """One queue for all generations: nothing is under way to this one alone."""
        return bool(self.addresses) and all(one.startswith("unix:") for one in self.addresses)


@dataclass(eq=False)
class Slot:
    index: int
    backoff: Backoff
    wanted: bool = True
    serving: Member | None = None
    served: set[str] = field(default_factory=set)  # where the one that served last did so
    incoming: Member | None = None
    healing: Member | None = None  # beside `incoming`: may be the first that can serve here
    previous: Member | None = None  # kept ready while the serving one bakes
    chain: list[Member] = field(default_factory=list)  # died here, not yet replaced
    early: list[int] = field(default_factory=list)  # the generations that died here too soon
    spawn_at: float | None = None
    surplus: bool = False  # goes at the cutover that is under way
    drained: bool = False  # emptied on request: not wanted, but keeps its place
    restarts: int = 0  # workers that ended here though nobody had asked them to
    last_error: tuple[float, str] | None = None  # when, and how one of those failed

    @property
    def dark(self) -> bool:
        """Nobody serves here."""
        return self.serving is None

    def coming(self) -> list[Member]:
        """Those that may serve here next."""
        return [member for member in (self.incoming, self.healing) if member]

    def forget(self, member: Member) -> None:
        """It does not come any more."""
        if self.incoming is member:
            self.incoming = None
        elif self.healing is member:
            self.healing = None


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
    cut_over_at: float = 0.0
