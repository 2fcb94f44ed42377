"""Statistics of what was measured. Pure: no clock, no processes, no printing."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LATE_GENERATOR_MS = 2.0  # p99 of the generator's own lag; above it the figures are suspect


def spread(counts: Sequence[int]) -> dict[str, Any]:
    """How evenly connections are spread: `counts` has one number per worker, zeros too."""
    mean = statistics.fmean(counts) if counts else 0.0
    if not mean:
        return {"counts": list(counts), "cv": None, "max_over_mean": None}
    return {
        "counts": list(counts),
        "cv": statistics.pstdev(counts) / mean,
        "max_over_mean": max(counts) / mean,
    }


def by_worker(found: Mapping[str, int], workers: int) -> list[int]:
    """Counts by slot, a zero for each that got nothing; others than slots are left out."""
    return [found.get(str(slot), 0) for slot in range(workers)]


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """Nearest rank: the smallest value that at least this part of all does not exceed."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def percentiles(values: Iterable[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    return {
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
        "p99.9": percentile(ordered, 0.999),
        "max": ordered[-1] if ordered else None,
    }


def schedule(
    rate: float, seconds: float, heavy_part: float, seed: int = 731
) -> list[tuple[float, bool]]:
    """(when, whether heavy) of each request of an open loop: independent clients,
    so exponential gaps. One seed gives one schedule: each policy gets the same."""
    chance = random.Random(seed)
    at = 0.0
    made: list[tuple[float, bool]] = []
    while True:
        at += chance.expovariate(rate)
        if at >= seconds:
            return made
        made.append((at, chance.random() < heavy_part))


def ideal(
    planned: Sequence[tuple[float, bool]], workers: int, light_ms: float, heavy_ms: float
) -> dict[str, float | None]:
    """The light latencies of that schedule with one queue and no cost at all: whichever
    worker is free takes the next. What no policy can beat; where it is bad, all workers
    were busy at times."""
    free = [0.0] * workers
    found = []
    for at, heavy in planned:
        ended = max(at, heapq.heappop(free)) + (heavy_ms if heavy else light_ms) / 1000
        heapq.heappush(free, ended)
        if not heavy:
            found.append((ended - at) * 1000)
    return percentiles(found)


def tail(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of an open loop's requests: the light ones' latencies, failures, the generator's lag."""
    light = [row for row in rows if not row["heavy"]]
    return {
        "light_ms": percentiles(row["ms"] for row in light if row["failure"] is None),
        "light": len(light),
        "heavy": len(rows) - len(light),
        "failed": failures(rows),
        "lag_ms": percentiles(row["lag_ms"] for row in rows),
    }


def failures(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        if row["failure"] is not None:
            found[row["failure"]] = found.get(row["failure"], 0) + 1
    return found


def fault(
    rows: Sequence[Mapping[str, Any]], at: float, until: float, late_ms: float
) -> dict[str, Any]:
    """What a fault at the moment `at` did to the requests, `until` when it was mended (a
    stopped worker goes on). `others_serve_s`: so long after the fault the last request
    came that failed or was late: from then on others have served all."""
    bad = [row for row in rows if row["failure"] is not None or row["ms"] > late_ms]
    after = [row for row in bad if row["at"] + row["ms"] / 1000 >= at]  # in hand then, or later
    during = [row["at"] for row in after if row["at"] <= until]
    return {
        "requests": len(rows),
        "failed": failures(after),
        "failures": sum(row["failure"] is not None for row in after),
        "late": sum(row["failure"] is None for row in after),
        "late_before": len(bad) - len(after),
        "worst_ms": max((row["ms"] for row in after if row["failure"] is None), default=0.0),
        "others_serve_s": max(0.0, max(during) - at) if during else 0.0,
        "fault_s": until - at,
    }


def median_of(results: Sequence[Any]) -> Any:
    """One result of several rounds of the same shape: medians of the numbers; of lists and
    texts the first round's. A number that some round lacks is taken from the others."""
    first = next((one for one in results if one is not None), None)
    if isinstance(first, Mapping):
        keys = {key: None for one in results if one is not None for key in one}
        return {
            key: median_of([one.get(key) for one in results if one is not None]) for key in keys
        }
    if isinstance(first, bool) or not isinstance(first, (int, float)):
        return first
    return statistics.median(one for one in results if one is not None)


def three(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    """(min, median, max): the median and how noisy it is."""
    known = sorted(value for value in values if value is not None)
    return (known[0], statistics.median(known), known[-1]) if known else None
