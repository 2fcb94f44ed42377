"""health: for probes. Its whole run is to take 20 ms, so it imports next to nothing, and its
words and the answer, a line of plain words, are taken apart by hand."""

from __future__ import annotations

import os
import sys

from ..control.masters import Failed, reach

USAGE = """\
usage: recluster health [NAME] [--min-ready N] [--timeout S] [--control PATH]

Exit code: 0 ready (N slots serve; without N: all that are not drained), 1 degraded
(fewer do), 2 down (none does, or a shutdown is under way, or nobody answers)."""
CODES = {"ready": 0, "degraded": 1, "down": 2}
VALUED = ("--min-ready", "--timeout", "--control")
ANSWER_WITHIN = 1.0  # seconds; a probe of Kubernetes has as long


class Usage(ValueError):
    """The words cannot be."""


def _parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    names: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if flag in VALUED:
            if not equals and not left:
                raise Usage(f"{flag}: give a value")
            given[flag] = value if equals else left.pop(0)
        elif word.startswith("-"):
            from ..base.nearest import unknown_option

            raise Usage(unknown_option(word, VALUED))
        else:
            names.append(word)
    if len(names) > 1:
        raise Usage(f"{names[1]!r} is one word too many")
    return given, names


def _limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 < limit <= 10**9:
        raise Usage(f"--timeout: {text!r} must be a number of seconds above 0")
    return limit


def _least(text: str) -> str:
    if text and not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Usage(f"--min-ready: {text!r} must be a whole number of at least 1")
    return text


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    if "--help" in words or "-h" in words:
        print(USAGE)
        return 0
    try:
        given, names = _parse(words)
        limit = _limit(given.get("--timeout", str(ANSWER_WITHIN)))
        least = _least(given.get("--min-ready", ""))
        name = master or (names[0] if names else None)
        line = _ask(name, given.get("--control"), least, limit)
        code = CODES.get(line.partition(" ")[0])
        if code is None:
            raise Failed(f"the master says: {line}")
        os.write(1, line.encode(errors="replace") + b"\n")
        return code
    except (Usage, Failed, OSError) as failure:
        print(f"{prog}: {failure}", file=sys.stderr)
        return 2


def _ask(name: str | int | None, path: str | None, least: str, limit: float) -> str:
    connection, who = reach(name, path, limit)
    try:
        connection.settimeout(limit)
        connection.send(b'{"cmd":"health","min_ready":%s}\n' % (least.encode() or b"null"))
        data = b""
        while not data.endswith(b"\n"):
            piece = connection.recv(4096)
            if not piece:
                raise Failed(f"{who} ended before it answered")
            data += piece
    except TimeoutError:
        raise Failed(f"{who} did not answer within {limit:g} s") from None
    finally:
        connection.close()
    return data.decode(errors="replace").rstrip()
