"""When a worker counts, and how its successor comes."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.cpus import usable_cpus
from .. import checks
from .field import Field

READY_WHEN = ("accepting", "listening", "started", "ready")


def default_boots(environ: Mapping[str, str]) -> int:
    return max(1, usable_cpus() // 2)


class Readiness:
    ready_when = Field(
        checks.one_of(*READY_WHEN),
        "accepting",
        "accepting",
        "WHEN",
        "accepting: when it has taken a connection, on which nothing is sent, at each place where "
        "it listens; listening: when it listens; started: when it runs; ready: when it says "
        '{"cmd": "ready"} on its channel',
        brief="accepting, listening, started, ready (it says so)",
    )

    ready_timeout = Field(
        checks.seconds_or_none,
        60.0,
        "60",
        "S",
        "a worker that is not ready after this long has failed; none: wait for ever",
        brief="not ready after this long has failed [60]",
        live=True,
    )

    give_up = Field(
        checks.whole(0),
        10,
        "10",
        "N",
        "end with exit code 1 after this many boot failures in a row before any worker "
        "was ever ready; 0: keep trying",
        live=True,
    )

    respawn = Field(
        checks.seconds,
        1.0,
        "1",
        "S",
        "least time between two spawns of a slot; a worker that lived longer is replaced at once",
        live=True,
    )

    backoff = Field(
        checks.seconds_or_none,
        30.0,
        "30",
        "S",
        "ceiling of a slot's pause between failing spawns, which doubles each time; "
        "0 or none: no pauses beyond respawn",
        live=True,
    )

    boots = Field(
        checks.whole(1),
        default_boots,
        "half of the usable CPUs",
        "N",
        "how many new workers boot at a time in a reload; more of them take the CPUs from those "
        "that serve",
        brief="how many boot at a time in a reload [CPUs / 2]",
        live=True,
    )

    surge = Field(
        checks.whole(0),
        0,
        "0",
        "N",
        "how many slots a reload replaces at a time; 0: all, with a cutover in one step",
        brief="slots that a reload replaces at a time [0: all]",
        live=True,
    )

    bake = Field(
        checks.seconds,
        0.0,
        "0",
        "S",
        "the old generation is kept this long after a cutover; a crash rolls back to it",
        brief="keep the old generation so long; a crash rolls back",
        live=True,
    )
