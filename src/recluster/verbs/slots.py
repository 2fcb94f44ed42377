"""scale, restart, drain, resume: how many slots there are, and one of them."""

from __future__ import annotations

from typing import Any

from .asked import Verb, run, whole
from .tables import plain


def _scaled(answer: dict[str, Any]) -> list[str]:
    return [f"scale: {answer['workers']} slots"]


def _slot(name: str, text: str) -> Verb:
    return Verb(
        name,
        text,
        lambda _, extra: {"slot": whole("SLOT", extra[0], 0)},
        lambda answer: [f"{name}: slot {answer['slot']}: {plain(answer['what'])}"],
        extra="SLOT",
    )


ALL = {
    "scale": Verb(
        "scale",
        "Have that many slots; those above drain.",
        lambda _, extra: {"workers": whole("N", extra[0], 1)},
        _scaled,
        extra="N",
    ),
    "restart": _slot("restart", "Replace the worker of a slot: the successor is ready first."),
    "drain": _slot("drain", "Retire the worker of a slot, which stays empty until `resume`."),
    "resume": _slot("resume", "Fill a drained slot again."),
}


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    return run(ALL[verb], words, prog, master)
