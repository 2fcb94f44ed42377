"""What an upgrade of the master costs clients: python bench/upgrade.py [--upgrades 100]

Each server runs under load (load.c: a connection for each request, and keep-alive) while its
master is upgraded again and again (`recluster upgrade`, to the same version: what is handed on,
and the way, do not know that). How long it took, as the master tells, is from its last
instruction as the old program to its first as the new one. Exit code 1 if a request fails, a
worker is replaced, or the master's descriptors become more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import Late, Master, arguments, compiled, free_port, machine, spread
from reload_under_load import MODES, Load, under_load
from reloaded import SERVERS, Server, installed

DEADLINE = 60.0


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def upgrade(master: Master) -> float:
    """Milliseconds."""
    words = [sys.executable, "-m", "recluster", "upgrade", str(master.pid)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE)
    done = master.events.until(lambda said: said["event"] == "upgraded", DEADLINE)
    return float(done["seconds"]) * 1000


def one(server: Server, mode: str, program: str, given: argparse.Namespace) -> bool:
    port, took = free_port(), list[float]()
    words = [word.replace("PORT", str(port)) for word in server.words]
    options = ("--balance", given.balance) if given.balance else ()
    options += ("--balance-by", given.balance_by) if given.balance_by else ()
    master = Master(
        words,
        workers=given.workers,
        options=options,
        cwd=Path(server.app).parent,
        log=subprocess.DEVNULL,
    )
    try:
        before = sorted(ready["pid"] for ready in master.wait_ready(DEADLINE))
        upgrade(master)
        held = descriptors(master.pid)

        def work(load: Load) -> None:
            for turn in range(given.upgrades):
                load.wait_for(given.requests * (turn + 1) // (given.upgrades + 1))
                took.append(upgrade(master))
            load.wait_for(given.requests)

        shape = {"connections": given.connections, "tick": 100, **MODES[mode]}
        report: dict[str, Any] = under_load(program, port, shape, work)
        more = descriptors(master.pid) - held
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        same = set(map(str, before)) <= set(children)
    finally:
        master.stop()
    failed = sum(report["failures"].values())
    print(
        f"{server.name:26} {mode:10} {report['requests']:8} requests, {failed} failed; "
        f"{given.upgrades} upgrades of {spread(took, 0)} ms; the longest stall "
        f"{report['stall_ms']:.0f} ms; workers {'the same' if same else 'REPLACED'}, "
        f"descriptors {more:+d}",
        flush=True,
    )
    return failed == 0 and same and more <= 0


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--upgrades", type=int, default=100)
    parser.add_argument("--requests", type=int, default=50000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--balance")
    parser.add_argument("--balance-by")
    parser.add_argument("--only", metavar="TEXT", nargs="+", default=[""])
    given = parser.parse_args()
    print(machine())
    program, held = compiled("load.c"), True
    for server in SERVERS:
        if server.peer or not any(text in server.name for text in given.only):
            continue
        if not installed(server):
            print(f"SKIPPED: {server.name}: not installed")
            continue
        for mode in MODES:
            try:
                held &= one(server, mode, program, given)
            except Late as late:
                print(f"{server.name} {mode}: {late}")
                held = False
    print("nothing was lost" if held else "FAILED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
