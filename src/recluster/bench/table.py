"""The results of one server as tables of text. With several rounds a cell is
least / median / most, so that the noise shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .figures import LATE_GENERATOR_MS, three
from .plan import Plan

Runs = Sequence[Mapping[str, Any]]
BUSY = 0.9  # of a CPU: a generator that uses more may be what limits the rate


def get(row: Mapping[str, Any], *keys: str) -> Any:
    """Of nested results; None where something is missing."""
    found: Any = row
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def cell(values: Sequence[float | None], digits: int) -> str:
    found = three(values)
    if found is None:
        return "-"
    if len(values) == 1:
        return f"{found[0]:.{digits}f}"
    return " / ".join(f"{one:.{digits}f}" for one in found)


def lines(server: str, runs: Runs, plan: Plan, policies: Sequence[str]) -> list[str]:
    """`runs`: all of this server, each with policy, workers, round."""
    by: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        by.setdefault((run["policy"], run["workers"]), []).append(run)
    known = [policy for policy in policies if any(key[0] == policy for key in by)]

    def row(policy: str, columns: Sequence[tuple[int, tuple[str, ...], int]]) -> list[str]:
        return [policy] + [
            cell([get(run, *keys) for run in by.get((policy, workers), [{}])], digits)
            for workers, keys, digits in columns
        ]

    def block(title: str, heads: list[str], columns: Any) -> list[str]:
        body = [row(policy, columns) for policy in known]
        if all(text == "-" for line in body for text in line[1:]):
            return []
        return ["", title, *aligned([["policy", *heads], *body])]

    made = [f"{server}"]
    for policy in known:
        for run in by.get((policy, plan.tail_workers), [])[:1]:
            if run.get("implementation"):
                made.append(f"  {policy}: {run['implementation']}")
    for kind, count in (("short", plan.short), ("long", plan.long)):
        wanted = "short" if kind == "short" else "long-lived"
        made += block(
            f"{count} {wanted} connections over N workers: busiest / mean, and coefficient of "
            "variation",
            [f"{n} max/mean" for n in plan.workers] + [f"{n} cv" for n in plan.workers],
            [(n, (kind, "max_over_mean"), 3) for n in plan.workers]
            + [(n, (kind, "cv"), 3) for n in plan.workers],
        )
    many, few = plan.tail_workers, plan.fault_workers
    made += block(
        f"light requests while {plan.heavy_part:.0%} of {plan.rate_for(many):.0f}/s block a worker "
        f"for {plan.heavy_ms} ms, {many} workers: latency in ms",
        ["p50", "p99", "p99.9", "max"],
        [(many, ("tail", "light_ms", key), 1) for key in ("p50", "p99", "p99.9", "max")],
    )
    best = next((one for run in runs if (one := get(run, "tail", "ideal_ms"))), None)
    if best:
        made.append(
            f"(one queue without any cost, computed: p50 {best['p50']:.1f}, p99 {best['p99']:.1f}, "
            f"p99.9 {best['p99.9']:.1f})"
        )
    made += block(
        f"accept cost, {many} workers, {plan.at_once} connections at a time",
        ["connections/s", "us CPU workers", "us CPU master"],
        [
            (many, ("accept", "per_second"), 0),
            (many, ("accept", "workers_us"), 1),
            (many, ("accept", "master_us"), 2),
        ],
    )
    for kind, text in (
        ("stopped", f"one of {few} workers stopped for {plan.fault_s:g} s"),
        ("killed", f"one of {few} workers killed"),
    ):
        made += block(
            f"{text}: requests that failed, that took over {plan.late_ms:g} ms, and when others "
            "served all",
            ["failed", "late", "worst ms", "others serve after s"],
            [
                (few, (kind, "failures"), 0),
                (few, (kind, "late"), 0),
                (few, (kind, "worst_ms"), 0),
                (few, (kind, "others_serve_s"), 2),
            ],
        )
    return made + doubts(runs)


def doubts(runs: Runs) -> list[str]:
    """What the reader must know of the figures."""
    said = []
    for run in runs:
        who = f"{run['policy']}, {run['workers']} workers"
        lag = get(run, "tail", "lag_ms", "p99")
        if lag is not None and lag > LATE_GENERATOR_MS:
            said.append(
                f"{who}: the load generator was late itself (p99 {lag:.1f} ms): the machine was "
                "too busy for these latencies"
            )
        busy = get(run, "accept", "generator_busy")
        if busy is not None and busy > BUSY:
            said.append(
                f"{who}: the load generator used {busy:.0%} of a CPU: connections/s are at least "
                "these"
            )
        for kind in ("short", "long", "tail"):
            failed = get(run, kind, "failed")
            if failed:
                words = ", ".join(f"{count} {name}" for name, count in failed.items())
                said.append(f"{who}: failed requests ({kind}): {words}")
        unknown = get(run, "short", "unknown")
        if unknown:
            said.append(f"{who}: of {unknown} short connections nobody knows the worker")
    return ["", *said] if said else []
