"""Every option: its default, meaning, check, flag and environment variable.

One definition (`FIELDS`) makes the dataclass's checks, the command line, the
environment variables and the table in README.md. Durations are seconds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .checks import (
    OptionError,
    addresses,
    control_path,
    directory,
    environment,
    log_topics,
    one_of,
    quiet,
    reason,
    seconds,
    seconds_or_none,
    stop_signal,
    weights_of,
    whole,
    words,
)
from .cpus import usable_cpus

READY_WHEN = ("listening", "started", "ready")
DOORS = ("auto", "notify", "preload")
BALANCES = (
    "auto",
    "reuseport",
    "shared",
    "source_ip",
    "weighted",
    "round_robin",
    "least_connections",
)
BALANCED_BY = ("auto", "kernel", "dispatch")


def default_workers(environ: Mapping[str, str]) -> int:
    """WEB_CONCURRENCY, or the CPUs this process may use."""
    wanted = environ.get("WEB_CONCURRENCY")
    if not wanted:
        return usable_cpus()
    try:
        return whole(1)(wanted)
    except ValueError as error:
        raise OptionError(f"WEB_CONCURRENCY: {wanted!r}: {reason(error)}") from None


def default_timeout(environ: Mapping[str, str]) -> float:
    """1 s in development, where waiting annoys; an hour in production."""
    development = environ.get("RECLUSTER_ENV") == "development" or sys.flags.dev_mode
    return 1.0 if development else 3600.0


def default_boots(environ: Mapping[str, str]) -> int:
    return max(1, usable_cpus() // 2)


@dataclass(frozen=True)
class Field:
    """One option: `check` turns a value, or its text, into what is kept."""

    name: str
    check: Callable[[object], Any]
    default: Any  # or a function of the environment
    shown: str  # the default as the table says it
    metavar: str
    help: str
    environ: str | None = None  # RECLUSTER_<NAME>, where that is not taken

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return self.environ or "RECLUSTER_" + self.name.upper()


FIELDS = (
    Field(
        "workers",
        whole(1),
        default_workers,
        "`WEB_CONCURRENCY`, or usable CPUs",
        "N",
        "how many workers; CPUs are counted by affinity and cgroup quota",
    ),
    Field(
        "timeout",
        seconds,
        default_timeout,
        "3600 (1 in development)",
        "S",
        "a retired worker is killed (SIGKILL) this long after its retirement; "
        "development is RECLUSTER_ENV=development or python -X dev",
    ),
    Field(
        "respawn",
        seconds,
        1.0,
        "1",
        "S",
        "least time between two spawns of a slot; a worker that lived longer is replaced at once",
    ),
    Field(
        "backoff",
        seconds_or_none,
        30.0,
        "30",
        "S",
        "ceiling of a slot's pause between failing spawns, which doubles each time; "
        "0 or none: no pauses beyond respawn",
    ),
    Field(
        "ready_when",
        one_of(*READY_WHEN),
        "listening",
        "listening",
        "WHEN",
        "listening: when it listens; started: when it runs; ready: when it says "
        '{"cmd": "ready"} on its channel',
    ),
    Field(
        "ready_timeout",
        seconds_or_none,
        60.0,
        "60",
        "S",
        "a worker that is not ready after this long has failed; none: wait for ever",
    ),
    Field(
        "give_up",
        whole(0),
        10,
        "10",
        "N",
        "end with exit code 1 after this many boot failures in a row before any worker "
        "was ever ready; 0: keep trying",
    ),
    Field(
        "drain_settle",
        seconds,
        1.0,
        "1",
        "S",
        "how long at least a retired worker goes on accepting what was already on its way",
    ),
    Field(
        "drain_owes",
        seconds,
        10.0,
        "10",
        "S",
        "how long at most a drained worker that catches the stop signal is waited for while "
        "a connection owes an answer",
    ),
    Field(
        "drain_quiet",
        quiet,
        5.0,
        "5",
        "S",
        "a worker that would die of the stop signal gets it when its connections are closed or "
        "have been quiet this long; timeout: never before that",
    ),
    Field(
        "hang_timeout",
        seconds_or_none,
        None,
        "none",
        "S",
        "a worker that takes no connections, though some wait and others get the new ones, is "
        "ended after this long; a Python one writes its stack to stderr first",
    ),
    Field(
        "max_draining",
        whole(1),
        3,
        "3",
        "N",
        "of more generations that drain at once the oldest gets the stop signal now and "
        "SIGKILL 10 s later",
    ),
    Field(
        "shutdown_delay",
        seconds,
        0.0,
        "0",
        "S",
        "how long to go on accepting after a shutdown was asked for (load balancers are slow)",
    ),
    Field(
        "bake",
        seconds,
        0.0,
        "0",
        "S",
        "the old generation is kept this long after a cutover; a crash rolls back to it",
    ),
    Field(
        "surge",
        whole(0),
        0,
        "0",
        "N",
        "how many slots a reload replaces at a time; 0: all, with a cutover in one step",
    ),
    Field(
        "boots",
        whole(1),
        default_boots,
        "half of the usable CPUs",
        "N",
        "how many new workers boot at a time in a reload; more of them take the CPUs from those "
        "that serve",
    ),
    Field(
        "hold",
        seconds_or_none,
        5.0,
        "5",
        "S",
        "when no worker has listened on an address for this long, clients that connect there "
        "wait unanswered until one does, so that health checks notice; 0 or none: never",
    ),
    Field(
        "stop_signal",
        stop_signal,
        int(signal.SIGTERM),
        "TERM",
        "SIGNAL",
        "what a drained worker gets to make it leave",
    ),
    Field(
        "door",
        one_of(*DOORS),
        "auto",
        "auto",
        "DOOR",
        "how bind and listen of workers are seen: notify (seccomp), preload (LD_PRELOAD "
        "library), auto (notify where the kernel allows it, and in dispatch a COMMAND's accept "
        "by the library)",
    ),
    Field(
        "balance",
        one_of(*BALANCES),
        "auto",
        "auto",
        "POLICY",
        "which worker gets a new connection: reuseport (any, at random), shared (whoever "
        "accepts first: one queue for all), source_ip (by the client's address, always the "
        "same), weighted (at random, by weight), round_robin (each in turn), least_connections "
        "(who has the fewest), auto (the best that can be done here)",
    ),
    Field(
        "weights",
        weights_of,
        None,
        "1 each",
        "SLOT=W,...",
        "with balance weighted: a slot's part of new connections against the others'; 0: none",
    ),
    Field(
        "balance_by",
        one_of(*BALANCED_BY),
        "auto",
        "auto",
        "HOW",
        "who does round_robin and least_connections: kernel (eBPF; needs CAP_BPF, the second "
        "CAP_NET_ADMIN too), dispatch (the master hands connections out), auto (the kernel where "
        "it allows that)",
    ),
    Field(
        "log",
        log_topics,
        None,
        "respawns=yes",
        "TOPIC=YES",
        "what is logged beside readiness, reloads and trouble; no: none of the topics",
    ),
    Field(
        "bind",
        addresses,
        None,
        "none",
        "ADDRESS",
        "HOST:PORT, [IPV6]:PORT or unix:PATH to listen on before the first worker starts, for the "
        "workers that bind it; may be given several times",
    ),
    Field("args", words, None, "none", "ARG", "arguments of FILE or MODULE"),
    Field(
        "env",
        environment,
        None,
        "none",
        "NAME=VALUE",
        "environment of the workers, on top of the master's; NAME alone takes it away",
        environ="RECLUSTER_WORKER_ENV",
    ),
    Field(
        "cwd",
        directory,
        None,
        "the master's",
        "DIR",
        "working directory of the workers; symbolic links are resolved anew at each spawn",
    ),
    Field(
        "control",
        control_path,
        None,
        "auto (as a library: none)",
        "PATH",
        "Unix socket for python -m recluster.ctl; auto: PID.sock in /run/recluster (root), "
        "$XDG_RUNTIME_DIR/recluster or /tmp/recluster-UID; none: no socket",
    ),
)


@dataclass(frozen=True)
class Options:
    """Validated options. Make one with `Options.make`."""

    workers: int
    timeout: float
    respawn: float
    backoff: float | None
    ready_when: str
    ready_timeout: float | None
    give_up: int
    drain_settle: float
    drain_owes: float
    drain_quiet: float | None
    hang_timeout: float | None
    max_draining: int
    shutdown_delay: float
    bake: float
    surge: int
    boots: int
    hold: float | None
    stop_signal: int
    door: str
    balance: str
    weights: dict[int, float] = field(hash=False)
    balance_by: str
    log: dict[str, bool] = field(hash=False)
    bind: tuple[str, ...]
    args: tuple[str, ...]
    env: dict[str, str | None] = field(hash=False)
    cwd: str | None
    control: str | None

    @classmethod
    def make(
        cls, given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> Options:
        """From what was given, else RECLUSTER_*, else the defaults.

        Raises OptionError naming the option (or the variable) and the value.
        """
        given = {} if given is None else given
        environ = os.environ if environ is None else environ
        known = {one.name for one in FIELDS}
        for name in given:
            if name not in known:
                raise OptionError(f"{name}: there is no such option")
        values: dict[str, Any] = {}
        for one in FIELDS:
            source, value = one.name, given.get(one.name)
            present = one.name in given
            if not present and environ.get(one.variable):
                source, value, present = one.variable, environ[one.variable], True
                if one.name == "args":
                    value = value.split()
            if not present:
                value = one.default(environ) if callable(one.default) else one.default
            try:
                values[one.name] = one.check(value)
            except (ValueError, TypeError) as error:
                raise OptionError(f"{source}: {value!r} {reason(error)}") from None
        if values["bake"] and values["surge"]:
            raise OptionError(
                f"bake: {values['bake']:g} goes with surge 0 only: a rolling reload has no "
                "old generation to go back to"
            )
        if values["weights"] and values["balance"] != "weighted":
            raise OptionError(f"weights: they go with balance weighted, not {values['balance']}")
        if not any(values["weights"].get(slot, 1) for slot in range(values["workers"])):
            raise OptionError("weights: all are 0: nobody would get a connection")
        if values["surge"] and values["balance"] == "shared":
            raise OptionError(
                f"surge: {values['surge']} does not go with balance shared: workers that share "
                "a socket stop accepting together"
            )
        return cls(**values)


assert [one.name for one in FIELDS] == [one.name for one in fields(Options)]
