"""What all events have in common: a name, fields, a level and a line of the log. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ..base.levels import INFO
from .view import Worker

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        return lambda one: one


INTERNAL = {"internal": True}  # a field that only the log is told by


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field,))
@dataclass(frozen=True, eq=False)
class Event:
    """What a callback gets. Each event is a frozen dataclass of its own, its fields attributes.

    Said with the class: `level`; `public=False`: only the log tells of it; `named=False`: the
    worker's name does not stand before the line.
    """

    worker: Worker | None = field(default=None, kw_only=True)
    """The one it is about, or None."""

    name: ClassVar[str] = ""
    public: ClassVar[bool] = True
    usual_level: ClassVar[int] = INFO
    named: ClassVar[bool] = True

    def __init_subclass__(
        cls, *, level: int = INFO, public: bool = True, named: bool = True
    ) -> None:
        cls.name = re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
        cls.usual_level, cls.public, cls.named = level, public, named
        dataclass(frozen=True, eq=False)(cls)

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
