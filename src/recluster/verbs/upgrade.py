"""upgrade: the recluster that is installed now, in the place of the master that runs."""

from __future__ import annotations

from typing import Any

from .asked import Verb, run
from .tables import plain


def _lines(answer: dict[str, Any]) -> list[str]:
    before, after = plain(answer["from_version"]), plain(answer["to_version"])
    return [f"upgrade: {before} -> {after} in {answer['seconds'] * 1000:.0f} ms"]


UPGRADE = Verb(
    "upgrade",
    "Put the recluster that is installed now in the place of the running master: the same "
    "process, the same workers. A version that cannot go on with them never takes over.",
    lambda given, _: {"wait": True},
    _lines,
)


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    return run(UPGRADE, words, prog, master)
