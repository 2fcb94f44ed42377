"""When a slot may spawn again. Pure: no clock, no randomness of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LEAST_HEALTHY_LIFE = 10.0
JITTER = 0.2


@dataclass
class Backoff:
    """The pauses of one slot.

    `floor`: least seconds between two spawns; also the first pause of a series.
    `ceiling`: longest pause; None or 0 switches the growing pauses off.
    `delay`: the next pause of the series; 0 while the slot is healthy.
    """

    floor: float
    ceiling: float | None
    delay: float = 0.0

    def next_spawn(
        self, now: float, born: float, ready_for: float | None, random: Callable[[], float]
    ) -> float:
        """The time at which the successor of a worker that just ended may start.

        `ready_for`: how long it had been ready; None if it never was. A worker
        that had been ready for twice the last pause (10 s at least) ends the
        series; a healthy one is replaced at once, `floor` after its own birth.
        """
        if ready_for is not None and ready_for >= max(LEAST_HEALTHY_LIFE, 2 * self.delay):
            self.delay = 0.0
        earliest = max(now, born + self.floor)
        if not self.ceiling:
            return earliest
        pause = self.delay * (1 - JITTER + 2 * JITTER * random())
        step = max(self.floor, 0.1)
        self.delay = min(self.ceiling, self.delay * 2 if self.delay else step)
        return max(earliest, now + min(pause, self.ceiling))
