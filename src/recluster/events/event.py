"""What all events have in common: a name, fields, a level and a line of the log. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..base.levels import INFO
from .view import Worker

INTERNAL = {"internal": True}  # a field that only the log is told by


@dataclass(frozen=True, eq=False)
class Event:
    """What a callback gets. Each event is a class of its own, and its fields are attributes."""

    worker: Worker | None = field(default=None, kw_only=True)
    """The one it is about, or None."""

    name: ClassVar[str] = ""
    public: ClassVar[bool] = True
    """False: only the log tells of it."""
    usual_level: ClassVar[int] = INFO
    named: ClassVar[bool] = True
    """The worker's name stands before the line."""

    @property
    def level(self) -> int:
        """Trouble that passes is a warning; what somebody must mend is an error."""
        return self.usual_level

    def line(self) -> str:
        """What the log says; nothing if it is empty."""
        return ""

    @property
    def topic(self) -> str | None:
        """The log says it once."""
        return None

    @classmethod
    def shape(cls) -> tuple[str, ...]:
        """The names of the fields that callbacks and logs are told."""
        return tuple(
            one.name
            for one in fields(cls)
            if one.name != "worker" and "internal" not in one.metadata
        )

    @property
    def details(self) -> dict[str, Any]:
        """Those fields, by name."""
        return {name: getattr(self, name) for name in self.shape()}
