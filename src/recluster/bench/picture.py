"""What the picture shows: panels of bars, one per policy and series. Drawn by svg.py
(nothing needed) or png.py (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .advice import Merged
from .plan import Plan
from .table import get


@dataclass(frozen=True)
class Panel:
    title: str
    groups: tuple[str, ...]
    series: tuple[tuple[str, tuple[float | None, ...]], ...]  # name, a value per group
    log: bool = False
    digits: int = 1

    @property
    def empty(self) -> bool:
        return all(value is None for _, values in self.series for value in values)


def panels(server: str, merged: Merged, plan: Plan) -> list[Panel]:
    """Of one server; those without a figure are left out."""
    groups = tuple(merged)
    many, few = plan.tail_workers, plan.fault_workers

    def panel(title: str, wanted: Sequence[tuple[str, int, tuple[str, ...]]], **more: Any) -> Panel:
        series = tuple(
            (name, tuple(_number(merged[policy].get(n, {}), keys) for policy in groups))
            for name, n, keys in wanted
        )
        return Panel(f"{server}: {title}", groups, series, **more)

    each = [(f"{n} workers", n) for n in plan.workers]
    made = [
        panel(
            f"{plan.short} short connections, busiest / mean",
            [(name, n, ("short", "max_over_mean")) for name, n in each],
            digits=2,
        ),
        panel(
            f"{plan.long} long-lived connections, busiest / mean",
            [(name, n, ("long", "max_over_mean")) for name, n in each],
            digits=2,
        ),
        panel(
            f"light requests under skew, ms, {many} workers",
            [(key, many, ("tail", "light_ms", key)) for key in ("p50", "p99", "p99.9")],
            log=True,
        ),
        panel(
            f"connections per second, {many} workers",
            [("connections/s", many, ("accept", "per_second"))],
            digits=0,
        ),
        panel(
            f"CPU per connection, us, {many} workers",
            [
                ("workers", many, ("accept", "workers_us")),
                ("master", many, ("accept", "master_us")),
            ],
        ),
        panel(
            f"late or failed requests, one of {few} workers",
            [
                ("stopped, late", few, ("stopped", "late")),
                ("killed, late", few, ("killed", "late")),
                ("killed, failed", few, ("killed", "failures")),
            ],
            digits=0,
        ),
    ]
    return [one for one in made if not one.empty]


def _number(row: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    found = get(row, *keys)
    return float(found) if isinstance(found, (int, float)) else None
