"""All workers looked at, so many in a turn of the master's loop.

Owns what is known of each, and who waits for the next look to be done. Invariants: a turn
reads of SLICE workers at most; nothing runs while nobody asks; of one worker the CPU time
never goes down, also when a child ends that nobody waits for.

PSS costs the kernel a walk over all pages (0.7 ms for 20 MB that are in no cache): a look reads
it of one worker, and none does again for RESTS times as long as that took. So it may be minutes
old; of a worker of which it was never read the next look reads it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .._engine import Engine
from ..base.watcher import Watcher
from .procfacts import Facts, proportional

SLICE = 32  # workers
RESTS = 50_000  # times what a read of PSS took: 0.002 % of a CPU

Known = dict[int, Facts]
Done = Callable[[Known], object]


class Census:
    """`keys`: of each worker, now; `look`: at so many of them, but for those that do not run, or
    for which there is no descriptor."""

    def __init__(
        self,
        watcher: Watcher,
        keys: Callable[[], list[int]],
        look: Callable[[list[int]], Known],
    ) -> None:
        self._watcher = watcher
        self._keys = keys
        self._look = look
        self._known: Known = {}
        self._weighed: dict[int, float] = {}  # key -> when its PSS was read
        self._weigh_again = 0.0
        self._left: list[int] = []
        self._waiting: list[Done] = []
        self._again = -1  # an eventfd: readable while there is something left to do

    def ask(self, done: Done) -> None:
        """Calls `done` with what is known of each worker, by key: at once where they are few,
        else in a later turn."""
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._left = self._keys()
            for key in self._known.keys() - set(self._left):
                del self._known[key]
                self._weighed.pop(key, None)
            self._go_on()

    def spent(self, engine: Engine, key: int) -> tuple[float, int | None]:
        """What a worker that has just ended has used, and how many connections it got."""
        seen = self._known[key].cpu if key in self._known else 0.0
        try:
            cpu, accepted, _ = engine.counts(key)
        except OSError:  # the engine has let go of it: its end is told nevertheless
            return seen, None
        return max(cpu, seen), accepted

    def close(self) -> None:
        if self._again >= 0:
            self._watcher.unwatch(self._again)
        self.abandon()

    def abandon(self) -> None:
        """In a forked child too."""
        if self._again >= 0:
            os.close(self._again)
        self._again = -1
        self._waiting.clear()

    def _go_on(self) -> None:
        now, self._left = self._left[:SLICE], self._left[SLICE:]
        found = self._look(now)
        for key in found.keys() & self._known.keys():
            facts, before = found[key], self._known[key]
            facts.pss = before.pss
            facts.cpu = max(facts.cpu, before.cpu)
        self._known.update(found)
        if self._left:
            self._come_again()
            return
        if self._again >= 0:
            self._watcher.unwatch(self._again)
            os.close(self._again)
            self._again = -1
        self._weigh()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(self._known)

    def _come_again(self) -> None:
        if self._again >= 0:
            return
        try:
            again = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:  # no descriptor is left: in one turn, then
            self._go_on()
            return
        try:
            self._watcher.watch(again, self._go_on)
        except BaseException:
            os.close(again)
            raise
        self._again = again

    def _weigh(self) -> None:
        """One of them, whoever it is longest ago of."""
        if time.monotonic() < self._weigh_again and self._known.keys() <= self._weighed.keys():
            return
        key = min(self._known, key=lambda key: self._weighed.get(key, 0.0), default=None)
        if key is None:
            return
        facts, before = self._known[key], time.thread_time()  # the clock would count who else runs
        facts.pss = proportional(facts.pids)
        self._weighed[key] = now = time.monotonic()
        self._weigh_again = now + RESTS * (time.thread_time() - before)
