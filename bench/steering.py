"""What steering costs: python bench/steering.py [--lanes 4 16 256] [--rounds 40]

Connections per second (connect, epoll, accept, close, in one thread of C) under each
policy's program beside the kernel's own hash over the same listeners, in turns; and how
long attaching a program takes. Bound: under no policy less than 0.98 of the hash, by
CPU time, which other processes on the machine disturb least.
"""

from __future__ import annotations

import collections
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import BENCH, arguments, machine, spread

CSRC = BENCH.parent / "csrc"
BOUND = 0.98


def build(folder: str) -> str:
    program = str(Path(folder) / "accept")
    files = [BENCH / "accept.c", *(CSRC / f"steer/{name}.c" for name in NAMES)]
    flags = ["-O2", "-std=gnu11", f"-I{CSRC}"]
    subprocess.run(["cc", *flags, "-o", program, *map(str, files)], check=True)
    return program


NAMES = ("steering", "text", "weighted", "sticky")


def main() -> int:
    made = arguments(__doc__ or "")
    made.add_argument("--lanes", type=int, nargs="+", default=[4, 16, 256])
    made.add_argument("--rounds", type=int, default=40)
    made.add_argument("--connections", type=int, default=1000, help="in a round")
    given = made.parse_args()
    print(machine())
    worst = 1.0
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        for lanes in given.lanes:
            words = [program, str(lanes), str(given.connections), str(given.rounds)]
            out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            wall, cpu = collections.defaultdict(list), collections.defaultdict(list)
            attach = {}
            for name, *figures in map(str.split, out.splitlines()):
                if len(figures) == 1:
                    attach[name] = int(figures[0]) / 1000
                else:
                    wall[name].append(1e9 / int(figures[0]))
                    cpu[name].append(int(figures[1]))
            print(f"\n{lanes} lanes: connections/s min / median / max; by CPU time; attach")
            for name in wall:
                pairs = zip(cpu["plain"], cpu[name], strict=True)
                ratio = statistics.median(plain / one for plain, one in pairs)
                worst = min(worst, ratio)
                took = f"{attach[name]:8.0f} us" if name in attach else ""
                print(f"  {name:10} {spread(wall[name], 0):>24}   {ratio:.3f}  {took}")
    print(f"\nworst ratio {worst:.3f}, bound {BOUND}")
    return 0 if worst >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
