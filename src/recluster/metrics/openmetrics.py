"""OpenMetrics text (openmetrics.io, version 1.0). Pure.

It is also what Prometheus's older text format takes, which textfile collectors read: no
type that the older one lacks, and what it does not know are comments to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

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


@lru_cache(maxsize=4096)  # a scrape asks for hundreds, and mostly for those of the one before
def labelled(**labels: str | int) -> str:
    told = (f'{name}="{escaped(str(value))}"' for name, value in labels.items())
    return "{" + ",".join(told) + "}"


Sample = tuple[str, float]  # its labels as `labelled` makes them, or "", and the value


class Text:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, family: Family, samples: Iterable[Sample]) -> None:
        """Nothing where there are no samples: what is not known is not zero."""
        name = family.sample
        lines = [f"{name}{labels} {number(value)}" for labels, value in samples]
        if lines:
            self._lines.append(family.head)
            self._lines += lines

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
