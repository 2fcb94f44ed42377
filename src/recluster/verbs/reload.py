"""reload, promote, rollback, weights: which code serves, and how much of it."""

from __future__ import annotations

import argparse
from typing import Any

from .asked import Verb, run
from .tables import verdict_lines


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number between 0 and 1")
    return value


def _reload_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--wait", action="store_true", help="until the reload is done")
    made.add_argument(
        "--canary",
        metavar="PART",
        type=_part,
        help="the new generation gets this part of new connections (0 to 1) until promote or "
        "rollback; --wait: until it does",
    )


def _reload_request(given: argparse.Namespace, _: list[str]) -> dict[str, Any]:
    request: dict[str, Any] = {}
    if given.wait:
        request["wait"] = True
    if given.canary is not None:
        request["canary"] = given.canary
    return request


def _reload_lines(answer: dict[str, Any]) -> list[str]:
    if "canary" in answer:
        part = f"{answer['canary']:.3g}"
        return [f"reload: generation {answer['generation']} gets {part} of new connections"]
    if "verdicts" in answer:
        return verdict_lines(answer)
    return [f"reload: generation {answer['generation']} is on its way"]


def _weights_lines(answer: dict[str, Any]) -> list[str]:
    weights = answer["weights"]
    told = ", ".join(f"{slot}={weights[slot]:g}" for slot in sorted(weights, key=int))
    return [f"weights: {told}; 1 for other slots"]


def _decides(name: str, text: str) -> Verb:
    return Verb(name, text, lambda given, _: {}, lambda answer: [f"{name}: done"])


ALL = {
    "reload": Verb(
        "reload",
        "Swap the code: a new generation takes over when all of it is ready. Exit code: 0 when "
        "it serves (without --wait: when the reload has begun), 1 when it failed.",
        _reload_request,
        _reload_lines,
        options=_reload_options,
        shown=" [--wait] [--canary PART]",
    ),
    "promote": _decides("promote", "The generation on probation gets all new connections."),
    "rollback": _decides("rollback", "The old generation gets all new connections again."),
    "weights": Verb(
        "weights",
        "With --balance weighted: change the part of new connections of slots.",
        lambda _, extra: {"weights": ",".join(extra)},
        _weights_lines,
        extra="SLOT=WEIGHT...",
        many=True,
    ),
}


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    return run(ALL[verb], words, prog, master)
