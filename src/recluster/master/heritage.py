"""What a master leaves to the one that takes its place in the same process: a text in a memfd.

Owns its form and number. Each part writes and reads its own (`population.carried`, the engine,
the listeners); here they are put together.

Invariant: a version that does not know the number, or misses a part, says so before anything has
been given up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _engine
from ..population import carried
from ..population.carried import Unknown

if TYPE_CHECKING:
    from ..cluster import Cluster

MARK = "RECLUSTER_SUCCEEDS"
"""In the environment of a new master, until it has read it: the descriptor with the text."""
FORMAT = 1
PARTS = frozenset(
    (
        "version",
        "began",
        "options",
        "door",
        "balance",
        "unneeded",
        "engine",
        "population",
        "pids",
        "tally",
        "control",
        "metrics",
        "pipes",
        "recent",
        "stored",
    )
)
Heritage = Mapping[str, Any]


def _options(cluster: Cluster) -> dict[str, str]:
    """What was said, not what are defaults: those may be others in the next version. Env files
    may have secrets."""
    import hashlib  # nobody's who is not upgraded

    options, settings = cluster.options, cluster._revision.settings
    said = {name: repr(getattr(options, name)) for name in sorted(options.sources)}
    filed = repr(sorted(settings.filed.items())).encode()
    said["the program"] = repr((settings.target.kind, settings.target.words))
    return {**said, "env files": hashlib.sha256(filed).hexdigest()}


def written(cluster: Cluster, began: float) -> dict[str, Any]:
    """Of a cluster at rest. `began`: when its end as this program did."""
    from .. import __version__

    assert cluster._spawner is not None
    engine, measuring = cluster._alive(), cluster._measuring
    return {
        "format": FORMAT,
        "version": __version__,
        "began": began,
        "options": _options(cluster),
        "door": cluster._spawner.door,
        "balance": cluster._balance,
        "unneeded": list(cluster._unneeded),
        "engine": engine.carried(),
        "population": carried.carried(cluster._population),
        "pids": [(worker.key, worker.pid) for worker in cluster._workers.values()],
        "tally": measuring.tally.carried(),
        "control": cluster._control.carried() if cluster._control else None,
        "metrics": measuring.carried(),
        "pipes": cluster._pipes.carried() if cluster._pipes else [],
        "recent": cluster._log.recent.carried() if cluster._log.recent else [],
        "stored": cluster._unit.carried() if cluster._unit else [],
    }


def put(heritage: Heritage) -> int:
    """A new memfd that has it. Raises OSError."""
    fd = os.memfd_create("recluster-heritage")
    try:
        left = memoryview(json.dumps(heritage).encode())
        while left:
            left = left[os.write(fd, left) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> Heritage:
    """Raises Unknown, or OSError."""
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        try:
            found = json.load(file)
        except ValueError:
            found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        number = found.get("format") if isinstance(found, dict) else None
        raise Unknown(f"its format {number}; known here is {FORMAT}")
    odd = sorted(found.keys() ^ {*PARTS, "format"})
    if odd:
        raise Unknown(", ".join(odd))
    return found


def check(cluster: Cluster, heritage: Heritage) -> None:
    """Whether this version, with the options that it finds now, can go on with that. Touches no
    descriptor and no worker. Raises Unknown."""
    now, before = _options(cluster), heritage["options"]
    differ = [name for name in sorted({*now, *before}) if now.get(name) != before.get(name)]
    if differ:
        raise Unknown(f"{', '.join(differ)} changed since the last reload: reload, or restart")
    wrong = _engine.resumable(heritage["engine"])
    if wrong:
        raise Unknown(f"what the engine knows: {wrong}")
    carried.resume(cluster._population, heritage["population"])
    cluster._measuring.tally.resume(heritage["tally"])
