"""Which mold is made, asked and ended, and what becomes of who waits for it. Pure.

A generation's first worker wants a mold; what it imports takes as long as it takes, and its
workers wait. One that fails, or is killed, takes with it those that it was to fork; the next
worker that is wanted makes a new one.

Where nobody has said what to import (`scouting`), the first mold imports nothing, and its first
worker shows it: the others wait until that one has, and get a mold that imports.

Invariants:
- a generation has at most one mold that can still be asked;
- who was wanted is asked for once, or fails, or was cancelled: nobody waits for a mold that
  has ended;
- a mold without anybody who waits for it lives no longer than its generation is kept.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Make:
    """Start a process that imports; then call `ready` or `ended`."""

    mold: int
    generation: int


@dataclass(frozen=True)
class Ask:
    """Have it fork this worker; then call `born` or `unborn`."""

    mold: int
    worker: int
    shows: bool  # what it imports is noted


@dataclass(frozen=True)
class Fail:
    """There will be no process for this worker."""

    worker: int
    why: str


@dataclass(frozen=True)
class End:
    mold: int


Command = Make | Ask | Fail | End


@dataclass(eq=False)
class Mold:
    id: int
    generation: int
    is_ready: bool = False
    ending: bool = False
    why: str = ""  # it failed, as it says itself
    waiting: list[int] = field(default_factory=list)  # workers that it is not asked for yet
    asked: list[int] = field(default_factory=list)
    scout: int = 0  # the worker that shows what to import


class Molds:
    """`first`: the number of the first mold, which no worker has."""

    def __init__(self, first: int, scouting: bool = False) -> None:
        self.all: dict[int, Mold] = {}
        self.scouting = scouting
        self._next = first
        self._commands: list[Command] = []

    def take(self) -> list[Command]:
        """The commands since the last call, in order."""
        commands, self._commands = self._commands, []
        return commands

    def of(self, generation: int) -> Mold | None:
        """The one that can be asked, now or when it has imported."""
        for mold in self.all.values():
            if mold.generation == generation and not mold.ending:
                return mold
        return None

    def wanted(self, worker: int, generation: int) -> None:
        mold = self.of(generation) or self._make(generation)
        mold.waiting.append(worker)
        if mold.is_ready:
            self._ask(mold)

    def _make(self, generation: int) -> Mold:
        mold = self.all[self._next] = Mold(self._next, generation)
        self._next += 1
        self._commands.append(Make(mold.id, generation))
        return mold

    def _ask(self, mold: Mold) -> None:
        workers, mold.waiting = mold.waiting, []
        if self.scouting:
            if mold.scout or not workers:
                mold.waiting = workers
                return
            workers, mold.waiting = workers[:1], workers[1:]
        if workers and not mold.scout:
            mold.scout = workers[0]
        mold.asked += workers
        self._commands += [Ask(mold.id, one, one == mold.scout) for one in workers]

    def ready(self, mold_id: int) -> None:
        """It has imported all."""
        mold = self.all[mold_id]
        mold.is_ready = True
        if not mold.ending:
            self._ask(mold)

    def scouted(self) -> None:
        """A scout has shown what to import. Molds that do so take the places of all."""
        self.scouting = False
        for mold in [one for one in self.all.values() if not one.ending]:
            waiting, mold.waiting = mold.waiting, []
            self._end(mold, "it has been replaced")
            self._make(mold.generation).waiting = waiting

    def lost(self, worker: int) -> None:
        """It has ended. As a scout it has shown nothing: the next one may."""
        for mold in self.all.values():
            if mold.scout == worker:
                mold.scout = 0
                if mold.is_ready and not mold.ending:
                    self._ask(mold)

    def failed(self, mold_id: int, why: str) -> None:
        """An import has failed, and a thread that it has left may keep it from ending."""
        self._end(self.all[mold_id], why)

    def ended(self, mold_id: int, why: str) -> None:
        """It was never there, or has exited."""
        mold = self.all.pop(mold_id)
        for worker in mold.asked + mold.waiting:
            self._commands.append(Fail(worker, mold.why or why))

    def born(self, worker: int) -> None:
        self._forget(worker)

    def unborn(self, worker: int, why: str) -> None:
        """The kernel refused it."""
        if self._forget(worker):
            self._commands.append(Fail(worker, why))
        self.lost(worker)

    def cancelled(self, worker: int, *, stuck: bool) -> None:
        """Nobody wants it any more; `stuck`: it has waited for too long."""
        mold = self._forget(worker)
        self.lost(worker)
        if mold and stuck:
            self._end(mold, "the mold was still importing" if not mold.is_ready else "it hangs")

    def _forget(self, worker: int) -> Mold | None:
        for mold in self.all.values():
            for place in (mold.waiting, mold.asked):
                if worker in place:
                    place.remove(worker)
                    return mold
        return None

    def keep(self, generations: Collection[int]) -> None:
        """Those that may need a worker again. Who still waits for another, gets it."""
        for mold in list(self.all.values()):
            if mold.generation not in generations and not mold.waiting and not mold.asked:
                self._end(mold, "its generation is over")

    def _end(self, mold: Mold, why: str) -> None:
        if not mold.ending:
            mold.ending, mold.why = True, why
            self._commands.append(End(mold.id))
