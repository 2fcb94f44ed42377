"""Who accepts, in each design: python bench/accept_designs.py [--rounds 3] [--only TEXT ...]

The measurements of `python -m recluster.bench` over, side by side in one run:

  C ...           prefork.c, a bare prefork server: one shared queue (blocking accept, epoll),
                  a SO_REUSEPORT queue each, accept + pass (round robin, least connections)
  node cluster    Node's own round robin; nginx, with and without reuseport, if installed
  one queue, KIND the built-in Python servers on one shared queue, by fork (shared_queue.py)
  POLICY, KIND    recluster --balance POLICY: every policy with C workers, auto (--all: every
                  policy) with the built-in servers

Tail: 5 % of 731 requests/s block a worker for 200 ms, 16 workers, latency of the light ones;
"p99 / queue" is to one shared queue of the same kind in the same round. Spread: busiest
worker / mean. Rate and CPU of connections come from accept_load.c. Cells are min / median /
max over the rounds, or one value. Exit code 1: recluster's default breaks a bound: light p99
at most 1.5 times that of one shared queue, of 400 long-lived connections busiest / mean at
most 1.3 (http, asyncio, uvloop).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accept_cost import Figures, one_turn
from accept_cost import policy as known_policy
from common import arguments, compiled, machine
from contestants import (
    Contestant,
    bare,
    clustered,
    installed,
    lone,
    nginx,
    node_cluster,
    shared_queue,
)

from recluster.bench import measure
from recluster.bench.measure import LoadFailed
from recluster.bench.plan import QUICK, WHOLE, Plan
from recluster.bench.running import Unavailable
from recluster.bench.servers import Server, built_in
from recluster.bench.table import aligned, cell, doubts, get
from recluster.options.fields.balance import BALANCES

P99_BOUND, SPREAD_BOUND = 1.5, 1.3
DEFAULT = "auto"
HELD = ("http", "asyncio", "uvloop")
BARE = {
    "C one queue, blocking": "blocking",
    "C one queue, epoll": "epoll",
    "C SO_REUSEPORT": "reuseport",
    "C pass, round robin": "round_robin",
    "C pass, least connections": "least_connections",
}
KINDS: tuple[tuple[str, str], ...] = (("blocking", "C blocking"), ("epoll", "C epoll"))


def contestants(program: str, policies: Sequence[str], everything: bool) -> list[Contestant]:
    rows = [Contestant(name, bare(program, design)) for name, design in BARE.items()]
    rows.append(Contestant("node cluster", node_cluster, missing="node"))
    rows += [
        Contestant("nginx", nginx(False), missing="nginx"),
        Contestant("nginx reuseport", nginx(True), missing="nginx"),
    ]
    servers = built_in(WHOLE.light_ms, WHOLE.heavy_ms)
    for kind in HELD:
        if not servers[kind].missing():
            rows.append(Contestant(f"one queue, {kind}", shared_queue(servers[kind])))
    for design, kind in KINDS:
        for policy in policies:
            rows.append(
                recluster(lone(program, design), policy, kind, f"C one queue, {design}", False)
            )
    for kind, server in servers.items():
        if server.missing():
            continue
        for policy in policies:
            if everything or policy == DEFAULT:
                shared = f"one queue, {kind}" if kind in HELD else None
                held = policy == DEFAULT and kind in HELD
                rows.append(recluster(server, policy, kind, shared, held))
    return rows


def recluster(server: Server, policy: str, kind: str, shared: str | None, held: bool) -> Contestant:
    return Contestant(f"{policy}, {kind}", clustered(server, policy), shared=shared, held=held)


def one_round(one: Contestant, plan: Plan, generator: str, seconds: float) -> dict[str, Any]:
    """number of workers -> what was measured. Raises Unavailable, LoadFailed."""
    found: dict[str, Any] = {}
    for workers in plan.workers:
        with one.start(workers) as target:
            # A killed worker of a bare server is not replaced, so faults come last.
            figures = Figures()
            one_turn(generator, target, figures, seconds, plan.at_once, 2)
            run = measure.everything(target, plan, lambda text: None)
            run["accept"] = {
                "per_second": figures.rate[0],
                "workers_us": figures.workers_us[0],
                "master_us": figures.master_us[0],
                "generator_busy": figures.busy[0],
            }
            found[str(workers)] = run
    return found


Rounds = dict[str, list[dict[str, Any]]]


def ratio(one: Contestant, rounds: Rounds, turn: int, plan: Plan) -> float | None:
    """Of the light p99 to that of one shared queue in that round."""
    keys = (str(plan.tail_workers), "tail", "light_ms", "p99")
    mine = get(rounds[one.name][turn], *keys)
    shared = rounds.get(one.shared or "", [])
    other = get(shared[turn], *keys) if turn < len(shared) else None
    return mine / other if mine is not None and other else None


def columns(plan: Plan) -> list[tuple[str, Callable[[Contestant, Rounds, int], Any], int]]:
    """(head, value of a row in a round, digits)"""
    few, many = str(plan.fault_workers), str(plan.tail_workers)

    def at(*keys: str) -> Callable[[Contestant, Rounds, int], Any]:
        return lambda one, rounds, turn: get(rounds[one.name][turn], *keys)

    return [
        ("p50 ms", at(many, "tail", "light_ms", "p50"), 1),
        ("p99 ms", at(many, "tail", "light_ms", "p99"), 1),
        ("p99.9 ms", at(many, "tail", "light_ms", "p99.9"), 1),
        ("p99 / queue", lambda one, rounds, turn: ratio(one, rounds, turn, plan), 2),
        (f"short, {many}", at(many, "short", "max_over_mean"), 2),
        *(
            (f"long, {workers}", at(str(workers), "long", "max_over_mean"), 2)
            for workers in plan.workers
        ),
        ("connections/s", at(many, "accept", "per_second"), 0),
        ("us workers", at(many, "accept", "workers_us"), 1),
        ("us master", at(many, "accept", "master_us"), 1),
        ("stopped: late", at(few, "stopped", "late"), 0),
        ("others after s", at(few, "stopped", "others_serve_s"), 1),
        ("killed: late", at(few, "killed", "late"), 0),
        ("failed", at(few, "killed", "failures"), 0),
    ]


def show(rows: list[Contestant], rounds: Rounds, plan: Plan) -> None:
    """Two tables, for one would be too wide."""
    wanted = columns(plan)
    first = 5 + len(plan.workers)
    for part in (wanted[:first], wanted[first:]):
        body = [
            [
                one.name,
                *(
                    cell([of(one, rounds, turn) for turn in range(len(rounds[one.name]))], digits)
                    for _, of, digits in part
                ),
            ]
            for one in rows
            if rounds.get(one.name)
        ]
        print()
        print("\n".join(aligned([["", *(head for head, _, _ in part)], *body])))


def broken(rows: list[Contestant], rounds: Rounds, plan: Plan) -> list[str]:
    found = []
    for one in rows:
        if not one.held or not rounds.get(one.name):
            continue
        turns = range(len(rounds[one.name]))
        ratios = [value for turn in turns if (value := ratio(one, rounds, turn, plan)) is not None]
        if ratios and statistics.median(ratios) > P99_BOUND:
            found.append(
                f"{one.name}: light p99 is {statistics.median(ratios):.2f} x that of one queue"
            )
        for workers in map(str, plan.workers):
            values = [get(row, workers, "long", "max_over_mean") for row in rounds[one.name]]
            known = [value for value in values if value is not None]
            if known and statistics.median(known) > SPREAD_BOUND:
                found.append(
                    f"{one.name}: of {plan.long} long-lived connections over {workers} workers "
                    f"busiest / mean is {statistics.median(known):.2f}"
                )
    return found


def options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--tail", type=float, default=10.0, help="seconds of the tail test")
    parser.add_argument(
        "--tries", type=int, default=1, metavar="N",
        help="measure a tail again in which the generator itself was late, N times at most",
    )  # fmt: skip
    parser.add_argument("--policies", nargs="+", default=list(BALANCES), type=known_policy)
    parser.add_argument("--all", action="store_true", help="every policy with every server")
    parser.add_argument("--quick", action="store_true", help="small numbers, 4 workers")
    parser.add_argument("--only", metavar="TEXT", nargs="+", help="rows whose name has TEXT")
    parser.add_argument("--json", metavar="FILE", help="all rounds, raw")
    return parser.parse_args()


def plan_of(given: argparse.Namespace) -> Plan:
    if given.quick:
        return QUICK
    return replace(
        WHOLE, workers=tuple(sorted(given.workers)), tail_s=given.tail, tail_tries=given.tries,
        fault_s=2.0, fault_before_s=0.5, fault_after_s=0.5,
    )  # fmt: skip


def main() -> int:
    given = options()
    plan = plan_of(given)
    print(machine())
    program, generator = compiled("prefork.c"), compiled("accept_load.c")
    wanted = contestants(program, given.policies, given.all)
    if given.only:
        chosen = [one for one in wanted if any(text in one.name for text in given.only)]
        # What a chosen row is compared to comes along.
        shared = {one.shared for one in chosen}
        wanted = [one for one in wanted if one in chosen or one.name in shared]
    rows = [one for one in wanted if installed(one)]
    for one in wanted:
        if one not in rows:
            print(f"SKIPPED: {one.name}: {one.missing} is not installed")
    rounds: Rounds = {one.name: [] for one in rows}
    order, chance = list(rows), random.Random(1)
    for turn in range(given.rounds):
        chance.shuffle(order)
        for number, one in enumerate(order):
            print(
                f"round {turn + 1} of {given.rounds}, {number + 1} of {len(order)}: {one.name}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            try:
                found = one_round(one, plan, generator, 0.3 if given.quick else 1.0)
            except (Unavailable, LoadFailed, OSError) as error:
                print(f"{one.name}: {error}", flush=True)
                found = {}
            rounds[one.name].append(found)
    show(rows, rounds, plan)
    said = doubts(
        [
            {"policy": name, "workers": int(workers), **run}
            for name, turns in rounds.items()
            for found in turns
            for workers, run in found.items()
        ]
    )
    print("\n".join(said))
    if given.json:
        Path(given.json).write_text(json.dumps(rounds, indent=1))
    print()
    print(machine())
    wrong = broken(rows, rounds, plan)
    print("\n".join(f"DOES NOT HOLD: {text}" for text in wrong) or "all bounds hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
