"""OpenMetrics text (openmetrics.io, version 1.0). Pure.

It is also what Prometheus's older text format takes, which textfile collectors read: no
type that the older one lacks, and what it does not know are comments to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OLDER = "text/plain; version=0.0.4; charset=utf-8"
UNITS = ("seconds", "bytes", "ratio")


@dataclass(frozen=True, eq=False)
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


class _Lines:
    """Of a family with labels, as they were last told: `text` with these `values`."""

    def __init__(self, family: Family, values: dict[Any, float], before: _Lines | None) -> None:
        self.values = values
        self.order: list[Any]
        self.form: str
        if before is not None and before.values.keys() == values.keys():
            self.order, self.form = before.order, before.form
        else:
            self.order = sorted(values)
            lines = [f"{family.sample}{_labelled(family.labels, key)}" for key in self.order]
            lines = [f"{line.replace('%', '%%')} %r" for line in lines]
            self.form = "\n".join([family.head.replace("%", "%%"), *lines])
        self.text = self.form % tuple(map(values.__getitem__, self.order))


class Text:
    """Can be told again and again: what is as it was before has the lines that it had."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._before: dict[Family, tuple[object, str]] = {}  # values, and lines
        self._labelled: dict[Family, _Lines] = {}

    def begin(self) -> None:
        """What was told before, or of a text that came to nothing, is not told again."""
        self._lines.clear()

    def one(self, family: Family, value: float) -> None:
        """A sample without labels."""
        before = self._before.get(family)
        if before is None or before[0] != value:
            lines = f"{family.head}\n{family.sample} {number(value)}"
            before = self._before[family] = value, lines
        self._lines.append(before[1])

    def by(self, family: Family, values: Mapping[K, float]) -> None:
        """One for each key, which is a label, or several. Nothing where there are none: what is
        not known is not zero."""
        if not values:
            return
        lines = self._labelled.get(family)
        # A Counter's own comparison takes a key that is missing for one that is 0.
        if lines is None or not dict.__eq__(lines.values, values):
            lines = self._labelled[family] = _Lines(family, dict(values), lines)
        self._lines.append(lines.text)

    def histogram(self, family: Family, within: dict[float, int], count: int, sum_: float) -> None:
        """`within`: upper bound -> how many were not above it."""
        values, before = (within, count, sum_), self._before.get(family)
        if before is None or before[0] != values:
            name, counts = family.name, (*within.items(), ("+Inf", count))
            lines = [f'{name}_bucket{{le="{bound}"}} {many}' for bound, many in counts]
            lines += f"{name}_sum {number(sum_)}", f"{name}_count {count}"
            before = self._before[family] = values, "\n".join([family.head, *lines])
        self._lines.append(before[1])

    def end(self) -> str:
        return "\n".join([*self._lines, "# EOF", ""])
