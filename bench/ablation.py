"""What each part of the unprivileged `auto` adds: python bench/ablation.py [--only TEXT ...]

Builds the tree once as it is and once for each part with that part switched off by an edit
of its source (EDITS), and runs the two loads of accept_designs.py that the default is held to
against each, in turns: the light p99 of 16 workers while 5 % of 731 requests/s block their
worker for 200 ms, and how 400 long-lived connections spread; beside them the rate and the
master's CPU of short connections. `bpf` is refused, so that the kernel may not count.

Two rows say how far the machine can be trusted: "as it is, again" is the same build a second
time, and "one shared queue" is what the tail is compared to. Beside the p99 stands what part of
the light requests took 50 ms and more: these met a blocked worker, which shows on a machine that
others use too. A tail begins when the CPUs are idle. One in which the generator was late, or half
of the light requests were, had not the CPUs to itself: it is measured again, --tries times at
most, and left out. Cells are quartile / median / quartile of what is left, of the other columns
of all; "above" counts spreads above the bound of 1.3. --json keeps each round; runs add to it,
so that many short ones make one table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accept_designs import SPREAD_BOUND
from common import BENCH, arguments, machine
from contestants import clustered, shared_queue

from recluster.bench import figures, measure
from recluster.bench.figures import LATE_GENERATOR_MS
from recluster.bench.measure import LoadFailed, Target
from recluster.bench.plan import WHOLE, Plan
from recluster.bench.running import Unavailable
from recluster.bench.servers import Server, built_in
from recluster.bench.table import aligned

TREE = BENCH.parent
WORKERS = 16
LATE_MS = 50.0
FLOODS = 4  # of long-lived connections, each time
P50_MOST_MS = 2.5  # a light request needs 1
PATIENCE = 10.0  # seconds for others to let the CPUs be idle, before each tail
QUEUE, WHOLE_AUTO, AGAIN = "one shared queue", "as it is", "as it is, again"

Edit = tuple[str, str, str]  # file, what stands there once, what is put in its place
POLLING: Edit = ("csrc/load/free.c", "    polling->until = now + LASTS_US;\n", "")
ARRIVAL: Edit = ("csrc/load/free.c", "    rc_lane_works(engine, lane, true, now);\n", "")
GRADES: Edit = (
    "csrc/load/free.c",
    "now - pressure->busy_at < TAKES_US  ? RC_TAKING",
    "now - pressure->busy_at < TAKES_US  ? RC_BLOCKED",
)
BUSY: Edit = ("csrc/load/free.c", "? RC_BUSY\n", "? RC_BLOCKED\n")
OPEN: Edit = ("csrc/watch/congestion.c", "    rc_imbalance_begin(engine, now);\n", "")
FLOOD: Edit = ("csrc/load/free.c", "bool flooded = known > 1 &&", "bool flooded = false &&")
SLICE: Edit = ("csrc/load/slice.c", "set_slice(wanted ? SLICE_NS : 0);", "")
FAST: Edit = ("csrc/load/free.c", "(uint64_t)lanes * FAST", "UINT64_MAX / 2")
HOT: Edit = ("csrc/watch/congestion.c", "STILL_US ? HOT_LOOKS : 0", "STILL_US ? 0 : 0")
FINE: Edit = ("csrc/load/free.c", "TAKING_SAMPLE_US = 500,", "TAKING_SAMPLE_US = 1000,")
EDITS: dict[str, tuple[Edit, ...]] = {
    WHOLE_AUTO: (),
    AGAIN: (),
    "no polling": (POLLING,),
    "no arrival": (ARRIVAL,),
    "no grades of work": (GRADES, BUSY),
    "no finer look": (FINE,),
    "no end by rate": (FAST,),
    "no count of what is open": (OPEN,),
    "no flood": (FLOOD,),
    "no short slice": (SLICE,),
    "no hot looks": (HOT,),
    "none of them": (POLLING, OPEN, SLICE, HOT),
}


def build(name: str, into: Path) -> Path:
    """The folder that has recluster as that variant has it. Raises CalledProcessError."""
    site = into / (WHOLE_AUTO if name == AGAIN else name).replace(" ", "-")
    if site.exists():
        return site
    with tempfile.TemporaryDirectory(dir=into) as directory:
        copy = Path(directory, "tree")
        unwanted = shutil.ignore_patterns(".*", "build", "*.so", "_engine.c", "__pycache__")
        shutil.copytree(TREE, copy, ignore=unwanted)
        for file, old, new in EDITS[name]:
            text = (copy / file).read_text()
            if text.count(old) != 1:
                sys.exit(f"{name}: {file} does not have this once: {old!r}")
            (copy / file).write_text(text.replace(old, new))
        made = Path(directory, "site")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
        # With CC="ccache cc" only what differs is compiled: the folder does not matter.
        settings = {**os.environ, "CCACHE_NOHASHDIR": "1"}
        subprocess.run([*command, str(made), str(copy)], check=True, env=settings)
        made.rename(site)
    return site


def start(name: str, server: Server) -> AbstractContextManager[Target]:
    return shared_queue(server)(WORKERS) if name == QUEUE else clustered(server, "auto")(WORKERS)


def tail(target: Target, plan: Plan) -> dict[str, Any]:
    rate = plan.rate_for(target.workers)
    planned = figures.schedule(rate, plan.tail_s, plan.heavy_part)
    with measure.open_loop(target, plan, planned) as load:
        rows = load.said("rows", plan.tail_s + 60.0)["rows"]
    late = [row["failure"] is not None or row["ms"] >= LATE_MS for row in rows if not row["heavy"]]
    found = figures.tail(rows)
    return {
        "p50": found["light_ms"]["p50"],
        "p99": found["light_ms"]["p99"],
        "late": 100 * sum(late) / len(late),
        "lag": found["lag_ms"]["p99"],
    }


def wait_for_calm(patience: float) -> None:
    """Until the CPUs were idle for half of half a second; no longer than `patience`."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        before = os.times().elapsed, idle_seconds()
        time.sleep(0.5)
        part = (idle_seconds() - before[1]) / (os.times().elapsed - before[0])
        if part > (os.cpu_count() or 1) / 2:
            return


def idle_seconds() -> float:
    """Of all CPUs together (proc(5))."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[4]) / os.sysconf("SC_CLK_TCK")


def is_calm(one: Mapping[str, Any], most_lag: float) -> bool:
    """Half of the light requests pass at once, whatever becomes of the others."""
    return bool(one["lag"] <= most_lag and one["p50"] <= P50_MOST_MS)


def one_round(name: str, server: Server, plan: Plan, most_lag: float) -> dict[str, Any]:
    """Raises Unavailable, LoadFailed."""
    with start(name, server) as target:
        tails: list[dict[str, Any]] = []
        while len(tails) < plan.tail_tries and not (tails and is_calm(tails[-1], most_lag)):
            wait_for_calm(PATIENCE)
            tails.append(tail(target, plan))
        longs = [found for _ in range(FLOODS) if (found := measure.long(target, plan))]
        short = measure.short(target, plan)
    best = min(tails, key=lambda one: (not is_calm(one, most_lag), float(one["lag"])))
    return {
        **best,
        "long": [found["max_over_mean"] for found in longs],
        "rate": short["accept"].get("per_second"),
        "master_us": short["accept"].get("master_us"),
    }


def cell(values: list[float | None], digits: int) -> str:
    known = sorted(value for value in values if value is not None)
    if len(known) < 2:
        return "-" if not known else f"{known[0]:.{digits}f}"
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return f"{low:.{digits}f} / {middle:.{digits}f} / {high:.{digits}f}"


def show(rounds: list[dict[str, Any]], most_lag: float) -> None:
    """A round: {"server", "rows": {variant: figures}}."""
    for server in dict.fromkeys(one["server"] for one in rounds):
        head = ["tails", "p99 ms", "p99 / queue", "late %", "long", "above", "1,000/s", "us master"]
        body = [[server, *head]]
        queue: float | None = None
        for name in (QUEUE, *EDITS):
            rows = [
                one["rows"][name]
                for one in rounds
                if one["server"] == server and name in one["rows"]
            ]
            if not rows:
                continue
            calm = [row for row in rows if is_calm(row, most_lag)]
            p99 = [row["p99"] for row in calm]
            longs = [one for row in rows for one in row["long"]]
            if name == QUEUE and p99:
                queue = statistics.median(p99)
            body.append(
                [
                    name,
                    f"{len(calm)} of {len(rows)}",
                    cell(p99, 1),
                    cell([value / queue for value in p99] if queue else [], 2),
                    cell([row["late"] for row in calm], 2),
                    cell(longs, 2),
                    f"{sum(one > SPREAD_BOUND for one in longs)} of {len(longs)}",
                    cell([row["rate"] and row["rate"] / 1000 for row in rows], 1),
                    cell([row["master_us"] for row in rows], 1),
                ]
            )
        print()
        print("\n".join(aligned(body)))


def options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=3600, help="no round begins after them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tail", type=float, default=6.0, help="seconds of the tail test")
    parser.add_argument("--lag", type=float, default=LATE_GENERATOR_MS, help="in ms, at most")
    parser.add_argument("--tries", type=int, default=3, help="of a tail that was disturbed")
    parser.add_argument("--short", type=int, default=6000, help="short connections")
    parser.add_argument("--servers", nargs="+", default=["http", "asyncio", "uvloop"])
    parser.add_argument("--only", metavar="TEXT", nargs="+", help="variants whose name has TEXT")
    parser.add_argument("--builds", metavar="DIR", help="where builds are kept, and found again")
    parser.add_argument("--json", metavar="FILE", help="all rounds; what is there is added to")
    parser.add_argument("--refused", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    given = options()
    if not given.refused:
        deny = [sys.executable, str(TREE / "tests" / "deny.py"), "bpf", "--"]
        os.execv(sys.executable, [*deny, sys.executable, *sys.argv, "--refused"])
    print(machine())
    until = time.monotonic() + given.seconds
    into = Path(given.builds or tempfile.mkdtemp(prefix="recluster-ablation-")).absolute()
    into.mkdir(parents=True, exist_ok=True)
    plan = replace(
        WHOLE, workers=(WORKERS,), tail_s=given.tail, tail_tries=given.tries, short=given.short
    )
    wanted = [
        name
        for name in EDITS
        if not given.only or name == WHOLE_AUTO or any(text in name for text in given.only)
    ]
    sites = {QUEUE: TREE / "src"} | {name: build(name, into) for name in wanted}
    servers = built_in(plan.light_ms, plan.heavy_ms)
    file = Path(given.json) if given.json else None
    rounds = json.loads(file.read_text()) if file and file.exists() else []
    for _ in range(given.rounds):
        for kind in given.servers:
            # A round that ends too soon is kept: its rows are compared with its own queue.
            rows: dict[str, Any] = {}
            names = random.sample(list(sites), len(sites))
            names.remove(QUEUE)
            for name in (QUEUE, *names):
                if time.monotonic() > until:
                    break
                os.environ["PYTHONPATH"] = str(sites[name])
                try:
                    rows[name] = one_round(name, servers[kind], plan, given.lag)
                except (Unavailable, LoadFailed, OSError) as error:
                    print(f"{name}, {kind}: {error}", file=sys.stderr, flush=True)
            if len(rows) > 1:
                rounds.append({"server": kind, "rows": rows})
            if file:
                file.write_text(json.dumps(rounds, indent=1))
    show(rounds, given.lag)
    print()
    print(machine())
    if not given.builds:
        shutil.rmtree(into, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
