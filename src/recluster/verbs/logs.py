"""logs: what the workers of a master have written, and its own lines."""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
from typing import Any

from ..control.asking import ANSWER_WITHIN
from ..control.masters import Failed, reach
from ..output.formats import PROGRAM, choose
from .asked import Parser, Usage, done, speak_plainly, whole
from .tables import plain

LINES = 100


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    speak_plainly()
    made = Parser(
        prog=f"{prog} logs",
        usage=f"{prog} logs [NAME] [-f] [--slot K] [-n N] [options]",
        description="The last lines of a master that was started with --prefix.",
        allow_abbrev=False,
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    made.add_argument("-f", "--follow", action="store_true", help="and those to come")
    made.add_argument("--slot", metavar="K", help="of this slot only")
    made.add_argument("-n", "--lines", metavar="N", help=f"how many at first [{LINES}]")
    made.add_argument("--json", action="store_true", help="as lines of JSON")
    made.add_argument("--control", metavar="PATH", help="the control socket of the master")
    given = made.parse_known_intermixed(words)
    try:
        request = _request(given)
        if len(given.words) > (0 if given.control or master else 1):
            raise Usage(f"{given.words[-1]!r} is one word too many")
    except Usage as error:
        made.error(str(error))
    name = given.words[0] if given.words else master
    return done(prog, lambda: _show(given, request, name))


def _request(given: argparse.Namespace) -> dict[str, Any]:
    """Raises Usage."""
    request: dict[str, Any] = {"cmd": "logs", "follow": given.follow, "lines": LINES}
    if given.lines is not None:
        request["lines"] = whole("--lines", given.lines, 0)
    if given.slot is not None:
        request["slot"] = whole("--slot", given.slot, 0)
    return request


def _show(given: argparse.Namespace, request: dict[str, Any], name: str | int | None) -> int:
    raw, who = reach(name, given.control, ANSWER_WITHIN)
    shown = choose("auto", journal=False, terminal=sys.stdout.isatty())
    with socket.socket(fileno=raw.detach()) as connection:
        connection.settimeout(ANSWER_WITHIN)
        with contextlib.suppress(ConnectionError):
            connection.sendall(json.dumps(request).encode() + b"\n")
        lines = connection.makefile("rb")
        try:
            first = lines.readline()
            answer = json.loads(first) if first.endswith(b"\n") else None
        except (OSError, ValueError):
            answer = None
        if not isinstance(answer, dict):
            raise Failed(f"{who} did not answer", 1)
        if not answer.get("ok"):
            unknown = str(answer.get("error")).startswith("unknown command")
            raise Failed(f"the master says: {plain(answer.get('error'))}", 2 if unknown else 1)
        connection.settimeout(None)
        with contextlib.suppress(ConnectionError):
            for line in lines:
                if line.endswith(b"\n"):  # else the master has ended
                    _print(line if given.json else _text(line, shown))
    return 0


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _text(line: bytes, shown: Any) -> bytes:
    """As the log has it."""
    told = json.loads(line)
    message = str(told.get("message", ""))
    if "stream" in told:
        made: bytes = shown.output(message.encode(), told, True, 0.0)
        return made + b"\n"
    when, level = str(told.get("time", "")).replace("T", " ", 1), str(told.get("level", "")).upper()
    return f"{when} {level} {PROGRAM}{message}\n".encode()
