"""ls, status: what runs, and how it is."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from ..base.socketfile import remove_dead
from ..base.text import say
from ..control.asking import ask
from ..control.masters import Failed, Master, all_masters
from .asked import Parser, Verb, run, seconds, speak_plainly
from .tables import status_lines, table

LOOK_WITHIN = 1.0  # seconds for each master's answer
GONE = (errno.ENOENT, errno.ECONNREFUSED)


def _metrics_option(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--metrics",
        action="store_true",
        help="as text for Prometheus (a textfile collector); exit code 0",
    )


STATUS = Verb(
    "status",
    "Slots, workers and lanes. Exit code: 0 when somebody serves, 1 when nobody does.",
    lambda given, _: {"cmd": "metrics"} if given.metrics else {},
    lambda answer: (
        status_lines(answer["status"])
        if "status" in answer
        else answer["metrics"].removesuffix("\n").split("\n")
    ),
    options=_metrics_option,
    shown=" [--metrics]",
    fine=lambda answer: "status" not in answer or answer["status"]["serving"] > 0,
    bare=lambda answer: answer.get("status", answer),
)


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    if verb == "ls":
        return _ls(words, prog, master)
    return run(STATUS, words, prog, master)


def _ls(words: list[str], prog: str, master: int | None) -> int:
    speak_plainly()
    made = Parser(
        prog=f"{prog} ls",
        usage=f"{prog} ls [--json] [--timeout S]",
        description="The masters of this user. Sockets that dead ones have left are removed.",
        allow_abbrev=False,
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    made.add_argument("--json", action="store_true", help="one line of JSON")
    made.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default=LOOK_WITHIN,
        help=f"seconds to wait for the answer of each [{LOOK_WITHIN:g}]",
    )
    given = made.parse_known_intermixed(words)
    if given.words or master:
        made.error(f"{given.words[0] if given.words else str(master)!r} is one word too many")
    found = [row for row in (_row(one, given.timeout) for one in all_masters()) if row]
    say("\n".join([json.dumps(found)] if given.json else picture(found, _width())))
    return 0


def _width() -> int | None:
    """Of the terminal that is looked at; None: nobody looks."""
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None


def picture(found: list[dict[str, Any]], width: int | None) -> list[str]:
    """Where it does not fit, one address of each stands for all."""
    if not found:
        return ["no master of this user runs"]
    lines = _table(found, "generation", " ".join)
    if width and max(map(len, lines)) > width:
        lines = _table(found, "gen", _first)
    return lines


def _first(addresses: list[str]) -> str:
    more = len(addresses) - 1
    return f"{addresses[0]} +{more}" if more > 0 else " ".join(addresses)


def _table(
    found: list[dict[str, Any]], generation: str, shown: Callable[[list[str]], str]
) -> list[str]:
    rows: list[tuple[object, ...]] = [("name", "pid", "addresses", generation, "health")]
    for row in found:
        where = shown(row["addresses"])
        rows.append((row["name"], row["pid"], where, row["generation"], row["health"]))
    return table(rows)


def _row(master: Master, timeout: float) -> dict[str, Any] | None:
    """None if it is dead: then its socket is removed."""
    row: dict[str, Any] = {
        "name": master.name or None,
        "pid": master.pid or None,
        "addresses": [],
        "generation": None,
        "control": master.path,
    }
    try:
        status = ask({"cmd": "status"}, None, master.path, timeout)["status"]
    except (Failed, KeyError) as failure:
        if _is_dead(master):
            for file in master.files:
                _remove(file)
            return None
        late = isinstance(failure, Failed) and failure.code == 1
        return {**row, "health": "does not answer" if late else str(failure)}
    addresses = {
        address
        for slot in status["slots"]
        for worker in slot["workers"]
        for address in worker["addresses"]
    }
    generation, health = status["generation"], status.get("health")
    return {
        **row,
        "pid": status["pid"],
        "addresses": sorted(addresses),
        "generation": generation,
        "health": health,
    }


def _is_dead(master: Master) -> bool:
    from ..control.masters import connect

    try:
        connect(master.path, 0.1)[0].close()
    except OSError as error:
        return error.errno in GONE
    return False


def _remove(file: str) -> None:
    try:
        remove_dead(file)
    except OSError as error:
        print(f"recluster: {file}: {error.strerror}", file=sys.stderr)
