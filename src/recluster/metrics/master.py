"""A master, as those see it that look at it and tell of it: status, metrics, the control socket."""

from __future__ import annotations

from typing import Any, Protocol

from .._engine import Engine
from ..base.watcher import Watcher
from ..events.view import Worker
from ..options import Options
from ..output.eventlog import EventLog
from ..output.recent import Recent
from ..output.sink import Output
from ..population.state import Population
from .census import Census
from .tally import Tally


class Master(Watcher, Protocol):
    """`balance` and `door` are what was chosen here, `name` is the control socket's."""

    options: Options
    population: Population
    workers: dict[int, Worker]
    outputs: list[Output]
    eventlog: EventLog
    tally: Tally
    census: Census
    balance: str

    @property
    def name(self) -> str | None: ...
    @property
    def door(self) -> str | None: ...
    @property
    def recent(self) -> Recent | None: ...
    @property
    def metrics_address(self) -> str | None: ...
    def molds(self) -> list[dict[str, Any]]: ...
    def alive(self) -> Engine:
        """Raises RuntimeError where it does not run."""
