"""stop: the end of a master."""

from __future__ import annotations

import argparse
from typing import Any

from .asked import Verb, run


def _options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--now", action="store_true", help="kill all workers at once")
    made.add_argument("--wait", action="store_true", help="until the master has ended")


def _request(given: argparse.Namespace, _: list[str]) -> dict[str, Any]:
    return {"now": given.now, "wait": given.wait}


def _lines(answer: dict[str, Any]) -> list[str]:
    return ["stop: on its way" if "pid" in answer else "stop: done"]


STOP = Verb(
    "stop",
    "Shut down gracefully: no new connection is taken, what has begun is served "
    "(`shutdown_timeout` at most).",
    _request,
    _lines,
    options=_options,
    shown=" [--now] [--wait]",
)


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    return run(STOP, words, prog, master)
