"""What the population knows: one plain object, which the functions of this package change.

Each of them is (population, event, now) -> commands: what is to be done is added to `commands`
by `do`, and whoever has told of the event takes it (`slots.take`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .. import events
from ..options import Options
from .commands import Command, Notice
from .members import Member, Reload, Slot


@dataclass(eq=False)
class Population:
    """`random`: of [0, 1)."""

    options: Options
    random: Callable[[], float]
    generation: int = 0
    members: dict[int, Member] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=dict)
    reloading: Reload | None = None
    baking: Reload | None = None  # cut over, may yet be rolled back
    reloads: int = 0  # how many were asked for
    last_reload: dict[str, Any] | None = None  # how the last one went
    rejected: set[int] = field(default_factory=set)  # generations that were rolled back
    commands: list[Command] = field(default_factory=list)
    about: int = 0  # the worker that `tick` looks at
    last_id: int = 0
    last_generation: int = 0

    # What is live, and is in force.
    weights: dict[int, float] = field(default_factory=dict)  # slot -> weight
    live: frozenset[int] = frozenset()
    live_weights: dict[int, float] = field(default_factory=dict)
    refused: bool = False  # what is in force is not what was asked for
    steer_at: float | None = None

    # Its end.
    closing: bool = False
    killing: bool = False  # terminate: nobody is waited for or relieved
    code: int = 0
    ended: int | None = None
    close_at: float | None = None
    close_by: float = 0.0  # when the last worker will be gone
    urge_at: float | None = None  # the stop signal comes once more
    waiting_at: float | None = None  # it is told what is waited for

    # What was seen of this program.
    proven: int = 0  # workers that became ready, and did not go to the background then
    nothing: str = ""  # that there is nothing to run, as a worker has found
    failures: int = 0
    dies_of_stop: bool | None = None  # None: nothing was seen
    longest_boot: float | None = None  # seconds from birth to ready, here
    daemons: bool = False  # it was seen to go to the background
    suspects: int = 0  # ended well, ready and young, and nothing of them was found
    told_failing: int = 0  # the generation

    # Where it listens.
    shared: set[tuple[str, int, bool]] = field(default_factory=set)  # where others listen too
    deserted: dict[str, float] = field(default_factory=dict)  # address -> since when
    held: set[str] = field(default_factory=set)
    offered: set[str] = field(default_factory=set)  # there before the workers, not claimed yet
    unclaimed: set[str] = field(default_factory=set)  # of these, where clients are refused
    claim_by: float | None = None  # since somebody is ready
    stopped_at: dict[int, float] = field(default_factory=dict)  # slot -> when it did so last

    # Who is recycled.
    due: dict[int, events.Recycle] = field(default_factory=dict)  # why, the longest due first
    recycled: Member | None = None
    next_at: float | None = None
    measure_at: float | None = None

    def __post_init__(self) -> None:
        self.weights = dict(self.options.weights)

    def do(self, command: Command) -> None:
        self.commands.append(command)

    def tell(self, event: events.Event, worker: int = 0) -> None:
        self.do(Notice(event, worker))

    def wanted(self) -> Iterator[Slot]:
        return (slot for slot in list(self.slots.values()) if slot.wanted)

    def kept(self) -> list[Slot]:
        return [slot for slot in self.wanted() if not slot.surplus]

    @property
    def size(self) -> int:
        """How many slots are wanted."""
        return len(self.kept())

    @property
    def recycles(self) -> bool:
        """Whether workers are replaced because they are old, large or worn."""
        options = self.options
        return bool(options.max_lifetime or options.max_rss or options.max_connections)

    @property
    def ever_ready(self) -> bool:
        return self.proven > 0

    @property
    def shutting_down(self) -> bool:
        """Asked to, though it may still accept (`shutdown_delay`)."""
        return self.closing or self.close_at is not None
