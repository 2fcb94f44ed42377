"""Real servers under dispatch: python bench/dispatch_peers.py [--connections 20000]

Each server runs unmodified under round_robin and least_connections by dispatch, forked and
exec'd, and answers
so many short connections, 16 at a time; and for comparison under reuseport, where it
accepts by itself. Printed: how many each worker has answered, and connections per
second. Exit code 1: a connection failed, or round_robin's counts differ by more than 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from common import BENCH, arguments, free_port, machine
from contestants import clustered

from recluster.bench import measure
from recluster.bench.plan import WHOLE
from recluster.bench.running import Unavailable
from recluster.bench.servers import Server, built_in

POLICIES = {
    "plain accept": "reuseport",
    "round_robin": "round_robin:dispatch",
    "least_connections": "least_connections:dispatch",
}


def servers() -> Iterator[Server]:
    known = built_in(0, 0)
    aiohttp = (str(BENCH / "apps" / "aiohttp_tells.py"), str(free_port()))
    known["aiohttp"] = replace(known["asyncio"], name="aiohttp", words=aiohttp, needs="aiohttp")
    for server in known.values():
        words = server.words
        if words[0] != "--":
            yield server
            words = ("--", sys.executable, *words)
        # What is missing is a module, not a program: the forked one has told.
        needs = server.needs if words == server.words else None
        yield replace(server, name=f"{server.name}, exec'd", words=words, needs=needs)


def main() -> int:
    made = arguments(__doc__)
    made.add_argument("--connections", type=int, default=20_000)
    made.add_argument("--workers", type=int, default=4)
    given = made.parse_args()
    plan = replace(WHOLE, short=given.connections)
    print(machine())
    print(f"{'':48}{'connections/s':>14}  of each worker")
    failed, absent = False, set()
    for server in servers():
        name = server.name.partition(",")[0]
        if server.missing() or name in absent:
            absent.add(name)
            print(f"{server.name}: {server.needs or name} is not installed here")
            continue
        for policy, balance in POLICIES.items():
            try:
                with clustered(server, balance)(given.workers) as target:
                    found = measure.short(target, plan)
            except Unavailable as error:
                print(f"{server.name}, {policy}: {error}")
                failed = True
                continue
            counts, rate = found["counts"], found["accept"].get("per_second", 0.0)
            wrong = sum(found["failed"].values()) or (
                policy == "round_robin" and max(counts) - min(counts) > 1
            )
            failed |= bool(wrong)
            told = f"  {found['failed']}" if found["failed"] else ""
            print(f"{f'{server.name}, {policy}':48}{rate:>14.0f}  {counts}{told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
