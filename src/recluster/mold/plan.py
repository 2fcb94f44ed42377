"""What a mold is to import, as the master says and as it says to itself when it begins anew.

Pure data, and JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

Step = str | list[str]  # a module, or sys.path from here on


@dataclass
class Plan:
    """`must`: modules that somebody has named: that one cannot be imported is the end of it."""

    steps: list[Step] = field(default_factory=list)
    must: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # to the workers
    blamed: dict[str, list[str]] = field(default_factory=dict)  # what they do at import
    rounds: int = 0  # how often it has begun anew

    def told(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, text: bytes) -> Plan:
        return cls(**json.loads(text))


def merged(plan: list[Step], more: list[Step]) -> list[Step]:
    """What is new comes behind."""
    known = {step if isinstance(step, str) else tuple(step) for step in plan}
    return plan + [s for s in more if (s if isinstance(s, str) else tuple(s)) not in known]
