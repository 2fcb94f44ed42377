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

from .cpus import usable_cpus

READY_WHEN = ("listening", "started", "ready")
DOORS = ("auto", "notify", "preload")
BALANCES = ("auto", "reuseport")
LOG_TOPICS = ("respawns",)


class OptionError(ValueError):
    """An option has a value it cannot have; the message names both."""


def _whole(least: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, str):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return value

    return check


def _seconds(value: object) -> float:
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number of seconds")
    if not 0 <= value <= 10**9:
        raise ValueError("must be a number of seconds, 0 or more")
    return float(value)


def _seconds_or_none(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return _seconds(value)


def _quiet(value: object) -> float | None:
    """None stands for `timeout`."""
    return None if value is None or value == "timeout" else _seconds(value)


def _one_of(*choices: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _stop_signal(value: object) -> int:
    """A number, or a name with or without SIG."""
    try:
        if isinstance(value, str) and not value.isdigit():
            name = value.upper()
            return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
        return int(signal.Signals(int(value)))  # type: ignore[call-overload]
    except (KeyError, ValueError, TypeError):
        raise ValueError("must be the name or number of a signal") from None


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in ("1", "0", "yes", "no", "true", "false", "on", "off"):
        raise ValueError("must be yes or no")
    return word in ("1", "yes", "true", "on")


def _log(value: object) -> dict[str, bool]:
    """A mapping, a truth value for all topics, or "topic=yes,topic=no"."""
    topics = dict.fromkeys(LOG_TOPICS, True)
    if value is None:
        return topics
    pairs: list[tuple[Any, ...]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str) and "=" in value:
        pairs = [tuple(part.split("=", 1)) for part in value.split(",")]
    else:
        return dict.fromkeys(LOG_TOPICS, _truth(value))
    for topic, wanted in pairs:
        if topic not in topics:
            raise ValueError(f"has no topic {topic!r} (there is {', '.join(LOG_TOPICS)})")
        topics[topic] = _truth(wanted)
    return topics


def _args(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ValueError("must be a list of strings")
    return tuple(os.fspath(item) for item in value)


def _env(value: object) -> dict[str, str | None]:
    """NAME -> value; None takes the variable away."""
    if value is None:
        return {}
    pairs: list[tuple[Any, ...]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str):
        pairs = [tuple(value.split("=", 1))] if "=" in value else [(value, None)]
    else:
        pairs = [tuple(item.split("=", 1)) for item in value]  # type: ignore[attr-defined]
    found: dict[str, str | None] = {}
    for pair in pairs:
        if len(pair) != 2 or not pair[0] or "=" in pair[0] or "\0" in f"{pair[0]}{pair[1]}":
            raise ValueError("must be NAME=VALUE")
        found[str(pair[0])] = None if pair[1] is None else str(pair[1])
    return found


def _cwd(value: object) -> str | None:
    if value is None:
        return None
    path = os.fspath(value)  # type: ignore[call-overload]
    if not os.path.isdir(path):
        raise ValueError("is not a directory")
    return str(path)


def _control(value: object) -> str | None:
    """A path, "auto" for the default one; None or "none": no socket."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    path = os.fspath(value)  # type: ignore[call-overload]
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("must be a path, auto or none")
    return path


def split_address(text: str) -> tuple[str, str, int]:
    """("unix", PATH, 0) or ("tcp", HOST, PORT), of what --bind takes."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path or len(os.fsencode(path)) > 107:
            raise ValueError("must have a path of at most 107 bytes behind unix:")
        return "unix", path, 0
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("must have brackets around an IPv6 address")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    return "tcp", host, int(port)


def _addresses(value: object) -> tuple[str, ...]:
    """A list of them; a string is split at white space and commas."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise ValueError("must be a list of addresses")
    for one in value:
        split_address(one)
    return tuple(value)


def default_workers(environ: Mapping[str, str]) -> int:
    """WEB_CONCURRENCY, or the CPUs this process may use."""
    wanted = environ.get("WEB_CONCURRENCY")
    if not wanted:
        return usable_cpus()
    try:
        return _whole(1)(wanted)
    except ValueError as error:
        raise OptionError(f"WEB_CONCURRENCY: {wanted!r}: {_reason(error)}") from None


def default_timeout(environ: Mapping[str, str]) -> float:
    """1 s in development, where waiting annoys; an hour in production."""
    development = environ.get("RECLUSTER_ENV") == "development" or sys.flags.dev_mode
    return 1.0 if development else 3600.0


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
        _whole(1),
        default_workers,
        "`WEB_CONCURRENCY`, or usable CPUs",
        "N",
        "how many workers; CPUs are counted by affinity and cgroup quota",
    ),
    Field(
        "timeout",
        _seconds,
        default_timeout,
        "3600 (1 in development)",
        "S",
        "a retired worker is killed (SIGKILL) this long after its retirement; "
        "development is RECLUSTER_ENV=development or python -X dev",
    ),
    Field(
        "respawn",
        _seconds,
        1.0,
        "1",
        "S",
        "least time between two spawns of a slot; a worker that lived longer is replaced at once",
    ),
    Field(
        "backoff",
        _seconds_or_none,
        30.0,
        "30",
        "S",
        "ceiling of a slot's pause between failing spawns, which doubles each time; "
        "0 or none: no pauses beyond respawn",
    ),
    Field(
        "ready_when",
        _one_of(*READY_WHEN),
        "listening",
        "listening",
        "WHEN",
        "listening: when it listens; started: when it runs; ready: when it says "
        '{"cmd": "ready"} on its channel',
    ),
    Field(
        "ready_timeout",
        _seconds_or_none,
        60.0,
        "60",
        "S",
        "a worker that is not ready after this long has failed; none: wait for ever",
    ),
    Field(
        "give_up",
        _whole(0),
        10,
        "10",
        "N",
        "end with exit code 1 after this many boot failures in a row before any worker "
        "was ever ready; 0: keep trying",
    ),
    Field(
        "drain_settle",
        _seconds,
        1.0,
        "1",
        "S",
        "how long at least a retired worker goes on accepting what was already on its way",
    ),
    Field(
        "drain_owes",
        _seconds,
        10.0,
        "10",
        "S",
        "how long at most a drained worker that catches the stop signal is waited for while "
        "a connection owes an answer",
    ),
    Field(
        "drain_quiet",
        _quiet,
        5.0,
        "5",
        "S",
        "a worker that would die of the stop signal gets it when its connections are closed or "
        "have been quiet this long; timeout: never before that",
    ),
    Field(
        "max_draining",
        _whole(1),
        3,
        "3",
        "N",
        "of more generations that drain at once the oldest gets the stop signal now and "
        "SIGKILL 10 s later",
    ),
    Field(
        "shutdown_delay",
        _seconds,
        0.0,
        "0",
        "S",
        "how long to go on accepting after a shutdown was asked for (load balancers are slow)",
    ),
    Field(
        "bake",
        _seconds,
        0.0,
        "0",
        "S",
        "the old generation is kept this long after a cutover; a crash rolls back to it",
    ),
    Field(
        "surge",
        _whole(0),
        0,
        "0",
        "N",
        "how many slots a reload replaces at a time; 0: all, with a cutover in one step",
    ),
    Field(
        "stop_signal",
        _stop_signal,
        int(signal.SIGTERM),
        "TERM",
        "SIGNAL",
        "what a drained worker gets to make it leave",
    ),
    Field(
        "door",
        _one_of(*DOORS),
        "auto",
        "auto",
        "DOOR",
        "how bind and listen of workers are seen: notify (seccomp), preload (LD_PRELOAD "
        "library), auto (notify where the kernel allows it)",
    ),
    Field(
        "balance",
        _one_of(*BALANCES),
        "auto",
        "auto",
        "POLICY",
        "which worker gets a new connection: reuseport (any, at random), auto (the best that "
        "can be done here)",
    ),
    Field(
        "log",
        _log,
        None,
        "respawns=yes",
        "TOPIC=YES",
        "what is logged beside readiness, reloads and trouble; no: none of the topics",
    ),
    Field(
        "bind",
        _addresses,
        None,
        "none",
        "ADDRESS",
        "HOST:PORT, [IPV6]:PORT or unix:PATH to listen on before the first worker starts, for the "
        "workers that bind it; may be given several times",
    ),
    Field("args", _args, None, "none", "ARG", "arguments of FILE or MODULE"),
    Field(
        "env",
        _env,
        None,
        "none",
        "NAME=VALUE",
        "environment of the workers, on top of the master's; NAME alone takes it away",
        environ="RECLUSTER_WORKER_ENV",
    ),
    Field(
        "cwd",
        _cwd,
        None,
        "the master's",
        "DIR",
        "working directory of the workers; symbolic links are resolved anew at each spawn",
    ),
    Field(
        "control",
        _control,
        None,
        "auto (as a library: none)",
        "PATH",
        "Unix socket for python -m recluster.ctl; auto: PID.sock in /run/recluster (root), "
        "$XDG_RUNTIME_DIR/recluster or /tmp/recluster-UID; none: no socket",
    ),
)


def _reason(error: Exception) -> str:
    text = str(error)
    if "invalid literal" in text:
        return "must be a whole number"
    if "could not convert" in text:
        return "must be a number of seconds"
    return text


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
    max_draining: int
    shutdown_delay: float
    bake: float
    surge: int
    stop_signal: int
    door: str
    balance: str
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
                raise OptionError(f"{source}: {value!r} {_reason(error)}") from None
        if values["bake"] and values["surge"]:
            raise OptionError(
                f"bake: {values['bake']:g} goes with surge 0 only: a rolling reload has no "
                "old generation to go back to"
            )
        return cls(**values)


assert [one.name for one in FIELDS] == [one.name for one in fields(Options)]
