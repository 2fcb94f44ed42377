"""What `Cluster` takes by name, for whoever checks types. A test compares it with the fields.

At run time more is taken (any option as text, as in the environment), and checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict

Path = str | os.PathLike[str]


class Given(TypedDict, total=False):
    workers: int
    bind: str | Sequence[str] | None
    name: str | None
    user: str | int | None
    group: str | int | None
    umask: str | int | None
    allow_bind: str | int | Sequence[str | int] | None
    env: Mapping[str, str | Path | float | None] | Iterable[str] | None
    env_file: Path | Iterable[Path] | None
    cwd: Path | None
    log: bool | Mapping[str, bool] | str | None
    args: Iterable[Path] | None
    preload: str | Sequence[str] | None
    ready_when: Literal["accepting", "listening", "started", "ready"]
    ready_url: str | None
    ready_timeout: float | None
    give_up: int
    respawn: float
    backoff: float | None
    boots: int
    surge: int
    bake: float
    timeout: float
    shutdown_timeout: float
    shutdown_delay: float
    drain_settle: float
    drain_owes: float
    drain_quiet: float | Literal["timeout"] | None
    hang_timeout: float | None
    max_draining: int
    stop_signal: int | str
    handover: Literal["auto", "off"]
    handover_idle: float
    max_rss: int | str | None
    max_lifetime: float | None
    max_connections: int | None
    jitter: float
    hold: float | None
    balance: Literal[
        "auto",
        "reuseport",
        "shared",
        "source_ip",
        "weighted",
        "round_robin",
        "least_connections",
    ]
    weights: Mapping[int, float] | str | None
    balance_by: Literal["auto", "kernel", "dispatch"]
    door: Literal["auto", "notify", "preload"]
    control: Path | None
    metrics: str | None
    on: str | Sequence[str | tuple[str, str]] | Mapping[str, str | Sequence[str]] | None
    log_format: Literal["auto", "text", "short", "json", "journal"]
    log_level: Literal["debug", "info", "warning", "error"]
    log_file: Path | None
    prefix: bool
    watch: bool | Path | Sequence[Path] | None
    watch_include: str | Sequence[str] | None
    watch_exclude: str | Sequence[str] | None
