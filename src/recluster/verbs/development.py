"""`recluster dev`: the defaults of who works on the code.

One worker, which has the terminal, so that `breakpoint()` works; short times; a reload when a
file changes. More workers (-w) have no terminal, and their output has its slot before it.
What flags, environment and configuration file say goes before all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from ..host.terminal import has_terminal
from ..master.watching import INSTALL, has_watchfiles
from ..options import Options

DEFAULTS: dict[str, Any] = {
    "workers": 1,
    "watch": ".",
    "give_up": 0,  # the code is about to be mended
    "ready_timeout": None,  # somebody sits at the debugger's prompt
    "drain_settle": 0.1,
    "log_format": "short",  # he looks on
}


def prepare(given: dict[str, Any], filed: Mapping[str, object]) -> None:
    """`given`: by flags; what is missing there, and in the environment and in `filed` too,
    is added. Before any option is made."""
    os.environ.setdefault("RECLUSTER_ENV", "development")
    for name, value in DEFAULTS.items():
        if not _said(name, given, filed):
            if name == "watch" and not has_watchfiles():
                print(f"recluster: changes are not watched: {INSTALL}", file=sys.stderr)
            else:
                given[name] = value
    if not _said("prefix", given, filed):
        workers = given.get("workers") or os.environ.get("RECLUSTER_WORKERS")
        given["prefix"] = str(workers or filed.get("workers")) != "1"


def _said(name: str, given: Mapping[str, Any], filed: Mapping[str, object]) -> bool:
    return name in given or name in filed or bool(os.environ.get(f"RECLUSTER_{name.upper()}"))


def keeps_terminal(options: Options) -> bool:
    """Whether the worker may have it: alone, and with its output unread."""
    alone = options.workers == 1 and not options.prefix and not options.preload
    return alone and has_terminal()
