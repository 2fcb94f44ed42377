"""Every option, in groups: the one place where an option is defined.

Of these come the attributes of `Options`, the command line, the environment variables,
`--help` and the table in docs/options.md. A group may be a file more. Durations are seconds.
"""

from __future__ import annotations

from typing import Any

from .balance import Balance
from .basics import Basics
from .develop import Develop
from .draining import Draining
from .expert import Expert
from .field import Field
from .measuring import Measuring
from .output import Output
from .preload import Preload
from .readiness import Readiness
from .recycling import Recycling

GROUPS: dict[str, tuple[Field[Any], ...]] = {
    title: tuple(one for one in vars(group).values() if isinstance(one, Field))
    for title, group in {
        "Basics": Basics,
        "Readiness and reload": Readiness,
        "Draining": Draining,
        "Balance": Balance,
        "Preload": Preload,
        "Log": Output,
        "Develop": Develop,
        "Metrics": Measuring,
        "Recycling": Recycling,
        "Expert": Expert,
    }.items()
}
FIELDS = tuple(one for fields in GROUPS.values() for one in fields)


class Fields(
    Basics,
    Readiness,
    Draining,
    Balance,
    Preload,
    Output,
    Develop,
    Measuring,
    Recycling,
    Expert,
):
    """All of them, as attributes."""


assert len(FIELDS) == len({one.name for one in FIELDS})
