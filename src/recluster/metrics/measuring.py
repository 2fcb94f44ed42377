"""What a cluster's measuring is made of: a tally, a census and, with --metrics, who is told.

Owns these three, and nothing of what they measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .census import Census
from .status import running_pids
from .tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._engine import Engine
    from ..cluster import Cluster
    from ..master.pump import Pump
    from .exporter import Exporter


class Measuring:
    def __init__(self, cluster: Cluster) -> None:
        self.tally = Tally()
        self.census = Census(cluster, lambda: running_pids(cluster))
        self._cluster = cluster
        self._exporter: Exporter | None = None

    @property
    def address(self) -> str | None:
        """Where the metrics are asked for."""
        return self._exporter.address if self._exporter else None

    def open(
        self,
        engine: Engine,
        pump: Pump,
        say: Callable[[str], None],
        before: tuple[str, int] | None = None,
    ) -> None:
        """Before the first worker; `before` as `carried` had it. Raises socketfile.Refused."""
        self.tally.spent = lambda key: self._spent(engine, key)
        if self._cluster.options.metrics is not None:
            from .exporter import Exporter  # nobody's who does not want it

            self._exporter = Exporter.opened(self._cluster, say, before)
            pump.attend(self._exporter)

    def carried(self) -> tuple[str, int] | None:
        """For the master that takes this one's place: where metrics are asked for, and by
        which descriptor."""
        return self._exporter.carried() if self._exporter else None

    @property
    def is_asked(self) -> bool:
        return self._exporter is not None and self._exporter.is_asked

    def _spent(self, engine: Engine, key: int) -> tuple[float, int | None]:
        """What a worker that has just ended has used, and how many connections it got."""
        seen = self.census.cpu_of(key)
        try:
            cpu, accepted, _ = engine.counts(key)
        except OSError:  # the engine has let go of it: its end is told nevertheless
            return seen, None
        return max(cpu, seen), accepted

    def close(self) -> None:
        self.census.close()
        if self._exporter:
            self._exporter.close()

    def abandon(self) -> None:
        """In a forked worker."""
        self.census.abandon()
        if self._exporter:
            self._exporter.abandon()
