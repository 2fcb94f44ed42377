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
from typing import Any

from .. import _engine
from ..population import carried
from ..population.carried import Unknown
from .supervisor import Supervisor

MARK = "RECLUSTER_SUCCEEDS"
"""In the environment of a new master, until it has read it: the descriptor with the text."""
FORMAT = 1
PARTS = frozenset((
    "version", "began", "options", "door", "balance", "unneeded", "engine", "population", "pids",
    "tally", "control", "metrics", "pipes", "recent", "stored",
))  # fmt: skip
Heritage = Mapping[str, Any]


def options_of(core: Supervisor) -> dict[str, str]:
    """What was said, not what are defaults: those may be others in the next version. Env files
    may have secrets."""
    import hashlib  # nobody's who is not upgraded

    options, settings = core.options, core.revision.settings
    said = {name: repr(getattr(options, name)) for name in sorted(options.sources)}
    filed = repr(sorted(settings.filed.items())).encode()
    said["the program"] = repr((settings.target.kind, settings.target.words))
    return {**said, "env files": hashlib.sha256(filed).hexdigest()}


def written(core: Supervisor, began: float) -> dict[str, Any]:
    """Of a cluster at rest. `began`: when its end as this program did."""
    from .. import __version__

    assert core.spawner is not None
    return {
        "format": FORMAT,
        "version": __version__,
        "began": began,
        "options": options_of(core),
        "door": core.spawner.door,
        "balance": core.balance,
        "unneeded": list(core.unneeded),
        "engine": core.alive().carried(),
        "population": carried.carried(core.population),
        "pids": [(worker.key, worker.pid) for worker in core.workers.values()],
        "tally": core.tally.carried(),
        "control": core.control.carried() if core.control else None,
        "metrics": core.exporter.carried() if core.exporter else None,
        "pipes": core.pipes.carried() if core.pipes else [],
        "recent": core.recent.carried() if core.recent else [],
        "stored": core.unit.carried() if core.unit else [],
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


def check(core: Supervisor, heritage: Heritage) -> None:
    """Whether this version, with the options that it finds now, can go on with that. Touches no
    descriptor and no worker. Raises Unknown."""
    now, before = options_of(core), heritage["options"]
    differ = [name for name in sorted({*now, *before}) if now.get(name) != before.get(name)]
    if differ:
        raise Unknown(f"{', '.join(differ)} changed since the last reload: reload, or restart")
    wrong = _engine.resumable(heritage["engine"])
    if wrong:
        raise Unknown(f"what the engine knows: {wrong}")
    carried.resume(core.population, heritage["population"])
    core.tally.resume(heritage["tally"])
