"""OpenMetrics text (openmetrics.io, version 1.0). Pure.

It is also what Prometheus's older text format takes, which textfile collectors read: no
type that the older one lacks, and what it does not know are comments to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OLDER = "text/plain; version=0.0.4; charset=utf-8"
UNITS = ("seconds", "bytes", "ratio")


@dataclass(frozen=True)
class Family:
    """`name` without _total; `labels`: their names, as the documentation says them."""

    name: str
    kind: str  # gauge, counter or histogram
    help: str
    labels: str = ""

    @cached_property
    def unit(self) -> str:
        return next((unit for unit in UNITS if self.name.endswith(f"_{unit}")), "")

    @cached_property
    def sample(self) -> str:
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @cached_property
    def head(self) -> str:
        """The lines before its samples."""
        lines = [f"# TYPE {self.name} {self.kind}", f"# HELP {self.name} {escaped(self.help)}"]
        if self.unit:
            lines.insert(1, f"# UNIT {self.name} {self.unit}")
        return "\n".join(lines)


def escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return text.encode("utf-8", "replace").decode()


def number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))


# A label, or several: those that there are.
K = TypeVar("K", str, int, tuple[int, str], tuple[int, int, int, str], tuple[str, str, str, str])


def _labelled(names: str, key: object) -> str:
    values = key if isinstance(key, tuple) else (key,)
    pairs = zip(names.split(", "), values, strict=True)
    return "{" + ",".join(f'{name}="{escaped(str(value))}"' for name, value in pairs) + "}"


@lru_cache(maxsize=256)  # a scrape asks for dozens, and mostly for those of the one before
def _form(family: Family, keys: tuple[K, ...]) -> tuple[str, list[K]]:
    """The lines of a family without its values, and the order in which those come."""
    order = sorted(keys)
    lines = [family.head.replace("%", "%%")]
    for key in order:
        start = f"{family.sample}{_labelled(family.labels, key)} "
        lines.append(start.replace("%", "%%") + "%r")
    return "\n".join(lines), order


class Text:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def one(self, family: Family, value: float) -> None:
        """A sample without labels."""
        self._lines += (family.head, f"{family.sample} {number(value)}")

    def by(self, family: Family, values: Mapping[K, float]) -> None:
        """One for each key, which is a label, or several. Nothing where there are none: what is
        not known is not zero."""
        if values:
            form, order = _form(family, tuple(values))
            self._lines.append(form % tuple(map(values.__getitem__, order)))

    def histogram(self, family: Family, within: dict[float, int], count: int, sum_: float) -> None:
        """`within`: upper bound -> how many were not above it."""
        self._lines.append(family.head)
        name = family.name
        for bound, many in within.items():
            self._lines.append(f'{name}_bucket{{le="{bound}"}} {many}')
        self._lines.append(f'{name}_bucket{{le="+Inf"}} {count}')
        self._lines.append(f"{name}_sum {number(sum_)}")
        self._lines.append(f"{name}_count {count}")

    def end(self) -> str:
        return "\n".join([*self._lines, "# EOF", ""])
