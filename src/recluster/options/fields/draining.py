"""How a worker leaves."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

from .. import checks
from .field import Field


def default_timeout(environ: Mapping[str, str]) -> float:
    """1 s in development, where waiting annoys; an hour in production."""
    development = environ.get("RECLUSTER_ENV") == "development" or sys.flags.dev_mode
    return 1.0 if development else 3600.0


class Draining:
    timeout = Field(
        checks.seconds,
        default_timeout,
        "3600 (1 in development)",
        "S",
        "a retired worker is killed (SIGKILL) this long after its retirement; "
        "development is RECLUSTER_ENV=development or python -X dev",
        brief="a retired worker is killed after this long [3600]",
        live=True,
    )

    shutdown_timeout = Field(
        checks.seconds,
        30.0,
        "30, or `timeout` where that is shorter",
        "S",
        "a shutdown ends at the latest after this long: workers that are left get SIGKILL; stay "
        "below systemd's TimeoutStopSec (90) and Kubernetes' grace period (30)",
        brief="a shutdown ends after this long [30]",
        live=True,
    )

    shutdown_delay = Field(
        checks.seconds,
        0.0,
        "0",
        "S",
        "how long to go on accepting after a shutdown was asked for (load balancers are slow)",
        brief="go on accepting after it was asked for [0]",
        live=True,
    )

    drain_settle = Field(
        checks.seconds,
        1.0,
        "1",
        "S",
        "how long at least a retired worker goes on accepting what was already on its way",
        brief="a retired worker accepts at least so long [1]",
        live=True,
    )

    drain_owes = Field(
        checks.seconds,
        10.0,
        "10",
        "S",
        "how long at most a drained worker that catches the stop signal is waited for while "
        "a connection owes an answer",
        live=True,
    )

    drain_quiet = Field(
        checks.quiet,
        5.0,
        "5",
        "S",
        "a worker that would die of the stop signal gets it when its connections are closed, have "
        "been quiet this long, or can be given to others (`handover`); timeout: never before "
        "that; given, it holds for workers that catch the signal too",
        live=True,
    )

    handover = Field(
        checks.one_of("auto", "off"),
        "auto",
        "auto",
        "WAY",
        "what waits for a worker that has died, hangs or was rolled back, and kept HTTP/1 "
        "connections of one that is told to stop, are given to others (`auto`: where these have "
        "the preload library); `off`: they wait for its successor, and are closed",
        brief="auto: a leaving worker's connections go to others; off [auto]",
    )

    handover_idle = Field(
        checks.seconds,
        75.0,
        "75",
        "S",
        "how long a kept connection whose worker had answered all, and was ended then, is held for "
        "the client's next request; longer than a proxy in front keeps its idle ones (nginx: 60)",
    )

    max_draining = Field(
        checks.whole(1),
        3,
        "3",
        "N",
        "of more generations that drain at once the oldest gets the stop signal now and "
        "SIGKILL 10 s later",
        live=True,
    )

    stop_signal = Field(
        checks.stop_signal,
        int(signal.SIGTERM),
        "TERM",
        "SIGNAL",
        "what a drained worker gets to make it leave",
        brief="what makes a drained worker leave [TERM]",
        live=True,
    )
