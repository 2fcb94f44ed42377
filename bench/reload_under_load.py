"""Reload under load, recluster beside its peers: python bench/reload_under_load.py

Each server (reloaded.py) runs with the same number of workers and answers with
its VERSION. The load generator, load.c, is a process of its own. Per server and
mode (one connection per request; keep-alive) there is a steady phase, then a
phase in which VERSION is edited and the server told to reload, again and again.
All servers take turns, round after round.

recluster is told by SIGUSR2 and reports on its --events pipe; peers are told by
SIGHUP, and count as done when reloaded.PROBES new connections in a row get the new answer.

Words of the tables:
  refused, reset, eof, timeout, bad   requests that failed, by kind
  idle race   reset or end of file on a reused connection before any byte of the
              answer: HTTP/1.1's own race, which a client may retry; no failure
  stall       the longest time in which no request of any client was completed;
              the ratio is to the p99.9 latency of the steady phase just before
  old/told    old answers on connections opened after the reload was reported done
  old/seen    old answers on connections opened after a client had seen the new one

Exit code 1 if under recluster a request fails, an old answer comes (told or
seen), the stall is not below --stall-bound times the steady p99.9, a reload is
not ok, or idle races are more frequent than with the same server under a peer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import (
    Late,
    Lines,
    arguments,
    compiled,
    machine,
    spread,
)
from reloaded import SERVERS, Peer, Recluster, Running, Server, installed

LOAD_DEADLINE = 300.0
# A kept connection lives longer (2 to 4 s) than a retired worker settles (1 s).
MODES = {"close": {"per_connection": 1}, "keep-alive": {"per_connection": 1000, "think_us": 4000}}


# ---- load ----------------------------------------------------------------------------


class Load:
    """One load generator process."""

    def __init__(self, program: str, port: int, options: dict[str, int]) -> None:
        words = [f"{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [program, str(port), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout is not None and self._process.stdin is not None
        self._lines = Lines(self._process.stdout.fileno())
        self._stdin = self._process.stdin
        self._until = time.monotonic() + LOAD_DEADLINE
        self._count = 0

    def tell(self, version: int) -> None:
        self._stdin.write(b"%d\n" % version)

    def wait_for(self, count: int) -> None:
        """Until that many requests in all were answered."""
        while self._count < count:
            self._count = self._lines.next(self._until - time.monotonic())["requests"]

    def finish(self) -> dict[str, Any]:
        self._stdin.close()
        report = self._lines.until(lambda said: bool(said.get("done")), 30.0)
        self._process.wait(5)
        return report

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)
        self._stdin.close()
        if self._process.stdout:
            self._process.stdout.close()


def under_load(
    program: str, port: int, options: dict[str, int], work: Callable[[Load], None]
) -> dict[str, Any]:
    load = Load(program, port, options)
    try:
        work(load)
        return load.finish()
    finally:
        load.kill()


# ---- one run ---------------------------------------------------------------------------


@dataclass
class Run:
    """What one server did in one mode in one round."""

    server: str
    mode: str
    steady: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    reloads: list[dict[str, float]] = field(default_factory=list)  # began, done, drained
    trouble: str | None = None


def reload_again_and_again(
    running: Running, load: Load, requests: int, reloads: int, run: Run
) -> None:
    for turn in range(reloads):
        load.wait_for(requests * (turn + 1) // (reloads + 1))
        running.edit()
        times = {"began": time.monotonic()}
        running.reload()
        times["done"] = time.monotonic()
        run.reloads.append(times)
        load.tell(running.version)
        running.wait_drained()
        times["drained"] = time.monotonic()
    load.wait_for(requests)


def one_run(server: Server, mode: str, program: str, given: argparse.Namespace) -> Run:
    runs_each = given.rounds * len(given.modes)
    requests, reloads = -(-given.requests // runs_each), -(-given.reloads // runs_each)
    steady = max(1000, requests // 4)
    options = {"connections": given.connections, "tick": 100, **MODES[mode]}
    run = Run(server.name, mode)
    running: Running | None = None
    try:
        running = (Peer if server.peer else Recluster)(server, given.workers)
        port = running.port
        run.steady = under_load(program, port, options, lambda load: load.wait_for(steady))

        def work(load: Load) -> None:
            try:
                reload_again_and_again(running, load, requests, reloads, run)
            except Late as error:  # what there is is still reported
                run.trouble = str(error)

        run.report = under_load(program, port, options, work)
        if run.trouble:
            run.trouble += f"; its log ends:\n{running.last_words()}"
    except (Late, OSError) as error:
        run.trouble = str(error)
    finally:
        if running:
            running.stop()
    return run


# ---- tables and bounds --------------------------------------------------------------------


def total(runs: list[Run], kind: str) -> int:
    return sum(run.report["failures"][kind] for run in runs)


def failures(runs: list[Run]) -> int:
    return sum(sum(run.report["failures"].values()) for run in runs)


def added(runs: list[Run], name: str) -> int:
    return sum(run.report[name] for run in runs)


def stall_ratios(runs: list[Run]) -> list[float]:
    return [run.report["stall_ms"] / run.steady["latency_ms"]["p99.9"] for run in runs]


def reload_count(runs: list[Run]) -> int:
    return sum(len(run.reloads) for run in runs)


def where_stalled(runs: list[Run]) -> str:
    """Of the longest stall: between which steps of a reload it began."""
    worst = max(runs, key=lambda run: run.report["stall_ms"])
    at, shown = worst.report["stall_at"], "before the first reload"
    for times in worst.reloads:
        for step, text in (
            ("began", "after the signal"),
            ("done", "after it was reported done"),
            ("drained", "after the old workers were gone"),
        ):
            if step in times and times[step] <= at:
                shown = f"{(at - times[step]) * 1000:.0f} ms {text}"
    return shown


def idle_race_rate(runs: list[Run]) -> float:
    """Per reload: that is what causes them."""
    return added(runs, "idle_race") / max(1, reload_count(runs))


def show(name: str, mode: str, runs: list[Run]) -> None:
    seconds = [one["done"] - one["began"] for run in runs for one in run.reloads]
    print(
        f"\n{name}, {mode}: {added(runs, 'requests')} requests on "
        f"{added(runs, 'connections')} connections, {len(seconds)} reloads"
    )
    kinds = ("refused", "reset", "eof", "timeout", "bad", "other")
    shown = ", ".join(f"{kind} {total(runs, kind)}" for kind in kinds)
    print(f"  failures  {failures(runs)} ({shown}); idle race {added(runs, 'idle_race')}")
    print(
        f"  versions  {max(len(run.report['versions']) for run in runs)} seen in a run; old/told "
        f"{added(runs, 'old_after_told')}, old/seen {added(runs, 'old_after_seen')}"
    )
    for label, place in (("steady", "steady"), ("reloads", "report")):
        parts = [getattr(run, place)["latency_ms"] for run in runs]
        columns = (
            f"{key} {statistics.median(part[key] for part in parts):.2f}" for key in parts[0]
        )
        stalls = [getattr(run, place)["stall_ms"] for run in runs]
        print(f"  {label:8}  latency ms {', '.join(columns)}; stall ms {spread(stalls)}")
    print(
        f"  stall / steady p99.9: {spread(stall_ratios(runs))}; the longest began "
        f"{where_stalled(runs)}"
    )
    if seconds:
        print(f"  a reload took s: {spread(seconds)}")


def summary(results: dict[tuple[str, str], list[Run]]) -> None:
    heads = ("requests", "reloads", "failed", "race", "old/told", "old/seen", "stall ms", "ratio")
    print(f"\n{'':36} " + " ".join(f"{head:>8}" for head in heads))
    for (name, mode), runs in results.items():
        numbers = (
            added(runs, "requests"), reload_count(runs),
            failures(runs), added(runs, "idle_race"),
            added(runs, "old_after_told"), added(runs, "old_after_seen"),
            f"{max(run.report['stall_ms'] for run in runs):.1f}", f"{max(stall_ratios(runs)):.2f}",
        )  # fmt: skip
        print(f"{name + ', ' + mode:36} " + " ".join(f"{number:>8}" for number in numbers))


def show_details(runs: list[Run]) -> None:
    for run in runs:
        for one in run.report["details"][:8]:
            print(f"    {json.dumps(one)}")


def broken(name: str, mode: str, runs: list[Run], bound: float) -> list[str]:
    """What of recluster's promises does not hold."""
    found = []
    if failures(runs):
        found.append(f"{failures(runs)} failures")
    for label in ("told", "seen"):
        if added(runs, f"old_after_{label}"):
            found.append(f"{added(runs, f'old_after_{label}')} old answers (old/{label})")
    if max(stall_ratios(runs)) >= bound:
        found.append(f"longest stall is {max(stall_ratios(runs)):.2f} x the steady p99.9")
    return [f"{name}, {mode}: {text}" for text in found]


def more_races(results: dict[tuple[str, str], list[Run]], chosen: list[Server]) -> list[str]:
    found = []
    for ours in (one for one in chosen if not one.peer and one.same):
        for theirs in (one for one in chosen if one.peer and one.same == ours.same):
            mine = results.get((ours.name, "keep-alive"))
            other = results.get((theirs.name, "keep-alive"))
            if mine and other and idle_race_rate(mine) > idle_race_rate(other):
                found.append(
                    f"{ours.name}: {idle_race_rate(mine):.1f} idle races per reload, "
                    f"{theirs.name}: {idle_race_rate(other):.1f}"
                )
    return found


def options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--requests", type=int, default=200_000, help="at least, per server")
    parser.add_argument("--reloads", type=int, default=20, help="at least, per server")
    parser.add_argument("--rounds", type=int, default=2, help="each server's runs per mode")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--only", metavar="TEXT", nargs="+", help="rows whose name has TEXT")
    parser.add_argument("--stall-bound", type=float, default=2.0, help="times the steady p99.9")
    parser.add_argument("--json", metavar="FILE", help="all runs, raw")
    return parser.parse_args()


def measure(
    chosen: list[Server], given: argparse.Namespace
) -> tuple[dict[tuple[str, str], list[Run]], list[str]]:
    """All runs by row and mode, and what went wrong under recluster."""
    program = compiled("load.c")
    results: dict[tuple[str, str], list[Run]] = {}
    troubles = []
    for turn in range(given.rounds):
        for server in chosen:
            for mode in given.modes:
                run = one_run(server, mode, program, given)
                if run.trouble:
                    print(f"round {turn + 1}: {server.name}, {mode}: {run.trouble}", flush=True)
                    if not server.peer:
                        troubles.append(f"{server.name}, {mode}: {run.trouble.splitlines()[0]}")
                if run.report and run.steady.get("requests"):
                    results.setdefault((server.name, mode), []).append(run)
    return results, troubles


def main() -> int:
    given = options()
    wanted = [one for one in SERVERS if not given.only or any(t in one.name for t in given.only)]
    chosen = [server for server in wanted if installed(server)]
    print(machine())
    for server in wanted:
        if server not in chosen:
            print(f"SKIPPED: {server.name}: {server.needs} is not installed")
    print(
        f"{given.workers} workers, {given.connections} clients, {given.rounds} rounds; "
        f"min / median / max over rounds",
        flush=True,
    )
    results, wrong = measure(chosen, given)
    for (name, mode), runs in results.items():
        show(name, mode, runs)
        if name.startswith("recluster"):
            wrong += broken(name, mode, runs, given.stall_bound)
            show_details(runs)
    summary(results)
    wrong += more_races(results, chosen)
    if given.json:
        raw = [vars(run) for runs in results.values() for run in runs]
        Path(given.json).write_text(json.dumps(raw, indent=1))
    print()
    print(machine())
    print("\n".join(f"DOES NOT HOLD: {text}" for text in wrong) or "all bounds hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
