"""What a worker of a mold has for itself: python bench/unshared.py [--app numpy] [--workers 16]

Starts uvicorn with recluster --preload, as preload.py does, asks --requests of each worker, and
compares one worker with its mold page by page (root only: the kernel shows frames to nobody
else): how many KiB are shared, hold the same (a reference was counted up and down again), differ
in so many words of eight bytes, or are the worker's alone. Above that the memory (PSS) of master,
guard, mold and workers.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common import BENCH, arguments, compiled, machine
from preloaded import APPLICATIONS, CLIENTS, Run, memory_of, recluster, tree
from reload_under_load import under_load

PAGE = 4096
PRESENT, FRAME = 1 << 63, (1 << 55) - 1
STEPS = ((0, "the same"), (2, "1 or 2 words"), (8, "up to 8"), (64, "up to 64"), (512, "more"))


def writable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) .w.p", line)
        if found:
            yield int(found[1], 16), int(found[2], 16)


def frames(pid: int) -> dict[int, int]:
    """By address, of private memory that may be written."""
    found: dict[int, int] = {}
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        for begin, end in writable(pid):
            file.seek(begin // PAGE * 8)
            data = file.read((end - begin) // PAGE * 8)
            entries = struct.unpack(f"<{len(data) // 8}Q", data)
            at = range(begin, end, PAGE)
            found.update({a: e & FRAME for a, e in zip(at, entries, strict=False) if e & PRESENT})
    return found


def words(file: int, at: int) -> tuple[int, ...]:
    return struct.unpack("<512Q", os.pread(file, PAGE, at))


def compare(mold: int, worker: int) -> Counter[str]:
    """KiB."""
    found: Counter[str] = Counter()
    before = frames(mold)
    ours, theirs = (os.open(f"/proc/{pid}/mem", os.O_RDONLY) for pid in (worker, mold))
    for at, frame in frames(worker).items():
        if at not in before:
            kind = "the worker's alone"
        elif before[at] == frame:
            kind = "shared"
        else:
            pairs = zip(words(ours, at), words(theirs, at), strict=True)
            many = sum(one != other for one, other in pairs)
            kind = next(name for most, name in STEPS if many <= most)
        found[kind] += PAGE // 1024
    return found


def main() -> int:
    made = arguments(__doc__)
    made.add_argument("--workers", type=int, default=16)
    made.add_argument("--app", choices=APPLICATIONS, default="numpy")
    made.add_argument("--requests", type=int, default=1000)
    given = made.parse_args()
    app, program = APPLICATIONS[given.app], compiled("load.c")
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        for one in (BENCH / "apps").glob("preload_*.py"):
            shutil.copy(one, name)
        run = Run(recluster("auto"), app, given.workers, Path(name))
        try:
            run.wait_up(given.workers)
            run.reload(2)
            count = given.requests * given.workers
            under_load(program, run.port, CLIENTS, lambda load: load.wait_for(count))
            workers = [pid for pid, _ in run.up()[given.workers :]]
            master, guard, *molds = [pid for pid in tree(run.process.pid) if pid not in workers]
            alone = {pid: memory_of(pid, children=False) for pid in (master, guard, *molds)}
            each = [memory_of(pid, children=False) for pid in workers]
            total = sum(alone.values()) + sum(each)
            names = ["master", "guard", *("mold" for _ in molds)]
            rest = ", ".join(f"{n} {mib:.1f}" for n, mib in zip(names, alone.values(), strict=True))
            print(f"PSS, MiB: {total:.1f}; {rest}, each worker {min(each):.1f} to {max(each):.1f}")
            for kind, kib in compare(molds[-1], workers[-1]).most_common():
                print(f"  {kind:<20} {kib:6} KiB")
        finally:
            run.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
