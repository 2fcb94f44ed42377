"""From spawn to `main`: python bench/spawn.py [--workers 1 16 64 256]

Beside each other, in turns, round after round:
  recluster   workers forked by a recluster master (FILE, no exec); from the
              master's decision to the first statement of the worker's file:
              channel, fork, door, fresh __main__, compile included
  os.fork     a Python process with the same modules loaded that only forks: what
              a fork of an interpreter costs whoever does it
  as large    bare_fork.c: fork(2) and nothing else, in a process with as much
              written memory as a master has: what the kernel's part is
  bare fork   the same in a process of 1 MB
  fresh       subprocess.Popen of a new interpreter; to its first statement

ms per worker: (last worker's first statement - first spawn) / workers, so what is
done side by side on several CPUs counts once. Exit code 1 if a fresh interpreter
is not at least --bound times as dear as a recluster worker (median).
"""

from __future__ import annotations

import functools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from common import BENCH, arguments, compiled, end, machine, spread

DEADLINE = 120.0
FRESH = (
    "import time; now = time.monotonic_ns(); import os; os.write(1, b'%d\\n' % now); os.read(0, 1)"
)


def per_worker(stamps: list[tuple[int, int]]) -> float:
    """Milliseconds."""
    first = min(began for began, _ in stamps)
    return (max(ended for _, ended in stamps) - first) / len(stamps) / 1e6


def recluster(count: int) -> list[tuple[int, int]]:
    """A master of its own, ended when all workers have written."""
    reader, writer = os.pipe()
    apps = BENCH / "apps"
    master = subprocess.Popen(
        [sys.executable, str(apps / "spawn_master.py"), "--workers", str(count),
         "--ready-when", "started", str(apps / "stamp.py")],
        env={**os.environ, "BENCH_FD": str(writer)}, pass_fds=[writer],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    began: dict[str, int] = {}
    ended: dict[str, int] = {}
    try:
        with open(reader) as lines:
            while len(ended) < count:
                what, slot, at = lines.readline().split()
                if what == "executed":
                    sys.exit("FAILED: recluster did not fork its workers here")
                (began if what == "began" else ended).setdefault(slot, int(at))
    finally:
        end(master, signal.SIGQUIT)
    return [(began[slot], ended[slot]) for slot in ended]


@functools.cache
def master_kib() -> int:
    """Written memory of a process with the modules of a master."""
    code = "import recluster.verbs.cli; print(open('/proc/self/smaps_rollup').read())"
    shown = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return int(next(line.split()[1] for line in shown.stdout.splitlines() if "Anonymous:" in line))


def program(words: list[str], count: int, *more: int) -> list[tuple[int, int]]:
    """One that writes both times of each of its children."""
    made = subprocess.run(
        [*words, str(count), *map(str, more)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return [(int(began), int(at)) for began, at in map(str.split, made.stdout.splitlines())]


def fresh(count: int) -> list[tuple[int, int]]:
    """`count` interpreters that wait for the end of their stdin."""
    started = []
    try:
        for _ in range(count):
            began = time.monotonic_ns()
            process = subprocess.Popen(
                [sys.executable, "-c", FRESH], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            started.append((began, process))
        return [(began, int(process.stdout.readline())) for began, process in started]
    finally:
        for _, process in started:
            process.communicate(timeout=DEADLINE)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bound", type=float, default=2.0, help="fresh / recluster at least")
    given = parser.parse_args()
    print(machine())
    python_fork = str(BENCH / "apps" / "python_fork.py")
    ways: dict[str, Callable[[int], list[tuple[int, int]]]] = {
        "recluster": recluster,
        "as large": lambda count: program([compiled("bare_fork.c")], count, master_kib()),
        "bare fork": functools.partial(program, [compiled("bare_fork.c")]),
        "os.fork": functools.partial(program, [sys.executable, python_fork]),
        "fresh": fresh,
    }
    print(f"ms per worker, {given.rounds} rounds: min / median / max")
    held = True
    for count in given.workers:
        figures: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                figures[name].append(per_worker(way(count)))
        held &= show(count, figures, given.bound)
    print("the bound holds" if held else "DOES NOT HOLD: see above")
    return 0 if held else 1


def show(count: int, figures: dict[str, list[float]], bound: float) -> bool:
    median = {name: statistics.median(values) for name, values in figures.items()}
    saved = median["fresh"] / median["recluster"]
    shown = ", ".join(f"{name} {spread(values, 3)}" for name, values in figures.items())
    print(
        f"{count:4} workers: {shown}\n"
        f"              recluster / bare fork {median['recluster'] / median['bare fork']:.1f}, "
        f"as large {median['recluster'] / median['as large']:.1f}, "
        f"os.fork {median['recluster'] / median['os.fork']:.1f}, "
        f"fresh / recluster {saved:.1f}" + ("" if saved >= bound else f"  BELOW {bound:g}"),
        flush=True,
    )
    return saved >= bound


if __name__ == "__main__":
    sys.exit(main())
