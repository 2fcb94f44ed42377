"""How much is measured. Two plans: the whole one, and `--quick`."""

from __future__ import annotations

from dataclasses import dataclass, replace

REFERENCE_WORKERS = 16
REFERENCE_RATE = 731.0  # requests per second at 16 workers: about half of them are busy


@dataclass(frozen=True)
class Plan:
    """Seconds and milliseconds as the names say; counts otherwise."""

    workers: tuple[int, ...] = (4, 8, 16)
    short: int = 20_000  # connections, one request each
    long: int = 400  # connections that stay open
    at_once: int = 16  # of them in the making at any time
    clients: int = 250  # client addresses of the loopback network
    tail_s: float = 20.0
    tail_tries: int = 1  # the tail is measured again if the machine disturbed it
    rate: float | None = None  # requests per second; None: 731 at 16 workers, in proportion
    heavy_part: float = 0.05
    heavy_ms: int = 200
    light_ms: int = 1
    fault_before_s: float = 1.0  # load before the fault, while it lasts, and after it
    fault_s: float = 3.0
    fault_after_s: float = 1.0
    fault_rate: float = 25.0  # light requests per second and worker
    late_ms: float = 100.0
    rounds: int = 1

    @property
    def tail_workers(self) -> int:
        return max(self.workers)

    @property
    def fault_workers(self) -> int:
        return min(self.workers)

    def rate_for(self, workers: int) -> float:
        return self.rate or REFERENCE_RATE * workers / REFERENCE_WORKERS


WHOLE = Plan()
QUICK = replace(
    WHOLE,
    workers=(4,),
    short=1000,
    long=100,
    tail_s=2.0,
    fault_before_s=0.2,
    fault_s=0.6,
    fault_after_s=0.2,
    fault_rate=50.0,
)
