"""What a proof of readiness costs: python bench/ready.py [--workers 1 4 16] [--rounds 8]

The same server, in turns, with `--ready-when listening` and `accepting`: ms from the start
of the master until all its workers are ready. The bound is on the ratio of the medians,
for each number of workers; exit code 1 if it is exceeded.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from common import EXAMPLES, Master, arguments, free_port, machine, spread

DEADLINE = 60.0


def boot(workers: int, when: str, server: str) -> float:
    """Milliseconds."""
    options = ("--ready-when", when, "--boots", str(workers), "--balance", "reuseport")
    began = time.monotonic()
    master = Master(
        [server, str(free_port())], workers=workers, options=options, log=subprocess.DEVNULL
    )
    try:
        master.wait_ready(DEADLINE)
        return (time.monotonic() - began) * 1e3
    finally:
        master.stop()


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--bound", type=float, default=1.25, help="accepting against listening")
    parser.add_argument("--server", default=str(EXAMPLES / "asyncio_server.py"))
    given = parser.parse_args()
    print(machine())
    exceeded = False
    for workers in given.workers:
        taken: dict[str, list[float]] = {"listening": [], "accepting": []}
        for _ in range(given.rounds):
            for when, times in taken.items():
                times.append(boot(workers, when, given.server))
        ratio = statistics.median(taken["accepting"]) / statistics.median(taken["listening"])
        exceeded |= ratio > given.bound
        for when, times in taken.items():
            print(f"{workers:4} workers, {when}: {spread(times, 1)} ms (min / median / max)")
        print(f"{workers:4} workers: ratio {ratio:.3f}, bound {given.bound:g}")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
