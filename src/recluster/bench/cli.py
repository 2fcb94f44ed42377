"""The command line of the benchmark, and the order of things.

Rounds outside, policies inside: what the machine does meanwhile falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from .. import __version__
from ..options.fields.balance import BALANCES
from ..verbs.cli import split
from . import measure, png, svg, table
from .advice import Advice, advise
from .figures import median_of
from .machine import machine
from .picture import Panel, panels
from .plan import QUICK, WHOLE, Plan
from .progress import Progress
from .running import Running, Unavailable
from .servers import Server, built_in, chosen

USAGE = """\
python -m recluster.bench [options]
       python -m recluster.bench [options] FILE.py [args...]
       python -m recluster.bench [options] -m MODULE [args...]
       python -m recluster.bench [options] -- COMMAND [args...]"""

EPILOG = """\
The server runs under `python -m recluster --balance POLICY --workers N`; other options of
recluster are given by their environment variables (RECLUSTER_DOOR=preload). A server of
your own is asked for --light (or /); its tail latency is measured when --heavy names what
blocks a worker. Exit code: 0 measured, 1 something could not be measured, 2 bad usage."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"recluster.bench: {message}\n")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _counts(text: str) -> tuple[int, ...]:
    """ "4,8,16" """
    try:
        counts = tuple(sorted({int(name) for name in _names(text)}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of workers: 4,8,16")
    return counts


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _path(text: str) -> str:
    """Of a URL or a path: what a request line asks for."""
    parts = urlsplit(text)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.startswith("/") or any(sign <= " " for sign in path):
        raise argparse.ArgumentTypeError(f"{text!r} must be a URL or a path that begins with /")
    return path


def parser() -> argparse.ArgumentParser:
    kinds = ", ".join(built_in(1, 200))
    made = _Parser(
        prog="recluster.bench", usage=USAGE, epilog=EPILOG, allow_abbrev=False,
        description="Measure a server under each policy of --balance, and recommend one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument(
        "--server", type=_names, default=["asyncio"], metavar="KIND,...",
        help=f"built-in servers, if no other is given: {kinds} [asyncio]",
    )  # fmt: skip
    made.add_argument(
        "--policies", type=_names, default=list(BALANCES), metavar="POLICY,...",
        help=f"which to compare [{','.join(BALANCES)}]",
    )  # fmt: skip
    made.add_argument(
        "--workers", type=_counts, metavar="N,...",
        help="numbers of workers; the tail is measured with the most, faults with the least "
        f"[{','.join(map(str, WHOLE.workers))}; quick: {','.join(map(str, QUICK.workers))}]",
    )  # fmt: skip
    made.add_argument("--rounds", type=_rounds, default=1, metavar="N", help="repeat all [1]")
    made.add_argument("--quick", action="store_true", help="small numbers, for a first look")
    made.add_argument(
        "--rate", type=_positive, metavar="R",
        help="requests per second of the tail test [731 at 16 workers, in proportion]",
    )  # fmt: skip
    made.add_argument("--light", type=_path, metavar="URL", help="a request that is quick [/]")
    made.add_argument(
        "--heavy", type=_path, metavar="URL", help="a request that blocks its worker (200 ms)"
    )
    made.add_argument("--json", metavar="PATH", help="write everything that was measured")
    made.add_argument(
        "--picture", metavar="PATH", help="draw it: .svg, or .png with recluster[bench]"
    )
    made.add_argument("--version", action="version", version=f"recluster {__version__}")
    return made


def parse(words: list[str]) -> tuple[argparse.Namespace, Plan, list[Server]]:
    """Exits with 2 for bad usage."""
    made = parser()
    ours, kind, theirs = split(words, made)
    given = made.parse_args(ours)
    for policy in given.policies:
        if policy not in BALANCES:
            made.error(f"--policies: there is no {policy!r} (there is {', '.join(BALANCES)})")
    plan = QUICK if given.quick else WHOLE
    plan = replace(
        plan, workers=given.workers or plan.workers, rate=given.rate, rounds=given.rounds
    )
    if given.picture and not given.picture.endswith(".svg") and not png.possible():
        made.error(
            f"--picture: {given.picture} needs matplotlib (pip install 'recluster[bench]'); "
            "a name that ends with .svg does not"
        )
    if kind and not theirs:
        made.error("give a FILE.py, -m MODULE or -- COMMAND, or none for a built-in server")
    if kind:
        prefix = {"module": ["-m"], "command": ["--"], "file": []}[kind]
        return given, plan, [chosen([*prefix, *theirs], given.light, given.heavy)]
    if given.light or given.heavy:
        made.error("--light and --heavy are for a server of your own")
    known = built_in(plan.light_ms, plan.heavy_ms)
    for name in given.server:
        if name not in known:
            made.error(f"--server: there is no {name!r} (there is {', '.join(known)})")
    servers = [known[name] for name in given.server]
    for server in servers:
        if server.missing():
            made.error(f"--server: {server.name} needs {server.needs}, which is not installed")
    return given, plan, servers


def implementation(status: dict[str, Any]) -> str | None:
    """What the policy is done with, as the master's status tells it."""
    said = status.get("balance")
    if isinstance(said, dict):
        return ", ".join(f"{key} {value}" for key, value in said.items())
    return None if said is None else str(said)


def one_cluster(
    server: Server, policy: str, workers: int, plan: Plan, progress: Progress
) -> dict[str, Any]:
    """Everything that is measured with this number of workers. Raises Unavailable,
    LoadFailed."""
    run: dict[str, Any] = {"server": server.name, "policy": policy, "workers": workers}
    with Running(server.words, policy, workers) as running:

        def step(text: str) -> None:
            progress.step(f"{server.name}, {policy}, {workers} workers: {text}")

        step("spread")
        running.wait_ready()
        run["implementation"] = implementation(running.status())
        target = measure.Target(server, running.address, dict(running.pids), running.process.pid)
        run.update(measure.everything(target, plan, step))
    return run


def measure_all(
    servers: list[Server], policies: list[str], plan: Plan, progress: Progress
) -> list[dict[str, Any]]:
    runs = []
    for turn in range(plan.rounds):
        for server in servers:
            for workers in plan.workers:
                for policy in policies:
                    run: dict[str, Any]
                    try:
                        run = one_cluster(server, policy, workers, plan, progress)
                    except (Unavailable, measure.LoadFailed, OSError) as error:
                        run = {"server": server.name, "policy": policy, "workers": workers}
                        run["trouble"] = str(error)
                    run["round"] = turn
                    if run.get("trouble"):
                        progress.say(f"{server.name}, {policy}, {workers}: {run['trouble']}")
                    runs.append(run)
    return runs


def merge(runs: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """policy -> workers -> medians over the rounds; of one server."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run in runs:
        if "short" in run:
            found.setdefault(run["policy"], {}).setdefault(run["workers"], []).append(run)
    return {
        policy: {workers: median_of(rows) for workers, rows in by.items()}
        for policy, by in found.items()
    }


def steps(servers: list[Server], policies: list[str], plan: Plan) -> int:
    """How often `step` is called, if nothing goes wrong."""
    each = sum(len(plan.workers) + bool(server.heavy) + 2 for server in servers)
    return plan.rounds * len(policies) * each


def report(
    servers: list[Server], runs: list[dict[str, Any]], plan: Plan, policies: list[str]
) -> tuple[dict[str, Advice], list[Panel]]:
    """Print the tables and the recommendations; returns these, and what to draw."""
    advices, drawn = {}, []
    for server in servers:
        own = [run for run in runs if run["server"] == server.name]
        merged = merge(own)
        print("\n" + "\n".join(table.lines(server.name, own, plan, policies)))
        advices[server.name] = advise(merged, plan.tail_workers, plan.fault_workers)
        print(f"\n{server.name}: {advices[server.name].text}", flush=True)
        drawn += panels(server.name, merged, plan)
    return advices, drawn


def main(words: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    given, plan, servers = parse(sys.argv[1:] if words is None else words)
    about = machine()
    print(f"machine: {about}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started
    progress = Progress(steps(servers, given.policies, plan))
    try:
        runs = measure_all(servers, given.policies, plan, progress)
    except KeyboardInterrupt:
        progress.end()
        return 130
    progress.end()
    advices, drawn = report(servers, runs, plan, given.policies)
    if given.json:
        said = {
            "version": __version__,
            "machine": about,
            "plan": asdict(plan),
            "runs": runs,
            "advice": {name: asdict(one) for name, one in advices.items()},
        }
        Path(given.json).write_text(json.dumps(said, indent=1) + "\n")
    if given.picture:
        if given.picture.endswith(".svg"):
            Path(given.picture).write_text(svg.drawn(drawn, about))
        else:
            png.draw(drawn, about, given.picture)
    return 1 if any(run.get("trouble") for run in runs) else 0
