"""What every command line has."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.cpus import usable_cpus
from .. import checks
from .field import Field


def default_workers(environ: Mapping[str, str]) -> int:
    return usable_cpus()


class Basics:
    workers = Field(
        checks.whole(1, checks.WORKERS_MOST),
        default_workers,
        "`WEB_CONCURRENCY`, or usable CPUs",
        "N",
        "how many workers; CPUs are counted by affinity and cgroup quota",
        short="-w",
        shared="WEB_CONCURRENCY",
        brief="how many workers [WEB_CONCURRENCY, or usable CPUs]",
        live=True,
    )

    bind = Field(
        checks.addresses,
        None,
        "none",
        "ADDRESS",
        "HOST:PORT, [IPV6]:PORT or unix:PATH to listen on before the first worker starts, for the "
        "workers that bind it; may be given several times",
        short="-b",
        repeated=True,
        brief="listen here before the first worker starts",
    )

    name = Field(
        checks.master_name,
        None,
        "the program's",
        "NAME",
        "what `recluster ls` calls it, and how it is found; a number is added where another "
        "master has it",
        brief="what `recluster ls` calls it [the program's name]",
    )

    env = Field(
        checks.environment,
        None,
        "none",
        "NAME=VALUE",
        "environment of the workers, on top of the master's; NAME alone takes it away",
        environ="RECLUSTER_WORKER_ENV",
        repeated=True,
        brief="environment of the workers; may be repeated",
        merged=True,
        live=True,
    )

    env_file = Field(
        checks.paths,
        None,
        "none",
        "PATH",
        "file of NAME=VALUE lines (`.env`) for the environment of the workers; env goes before it; "
        "read anew at each reload; may be given several times",
        repeated=True,
        brief="NAME=VALUE lines, read anew at each reload",
        live=True,
    )

    cwd = Field(
        checks.directory,
        None,
        "the master's",
        "DIR",
        "working directory of the workers; symbolic links are resolved anew at each spawn",
        brief="working directory of the workers",
        live=True,
    )

    log = Field(
        checks.log_topics,
        None,
        "respawns=yes",
        "TOPIC=YES",
        "what is logged beside readiness, reloads and trouble; no: none of the topics",
        brief="respawns=no: do not log ends of workers",
        live=True,
    )

    args = Field(
        checks.words,
        None,
        "none",
        "ARG",
        "arguments of FILE or MODULE",
        environ="",  # how would one split it?
        live=True,
    )
