r"""Files of NAME=VALUE lines, as many tools have them (`.env`).

A line is empty, a comment (#), or NAME=VALUE with an optional `export` before it. A VALUE in
single quotes is what stands there; in double quotes \n \r \t \" \\ and \$ are escapes; both
may have several lines. Without quotes it ends at the end of the line, or at ` #`. Nothing is
expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .checks import OptionError
from .textfile import read_text

ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=#'\"]+)[ \t]*=[ \t]*")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
BLANK = re.compile(r"[ \t]*(?:#.*)?(?:\r?\n|$)")
SINGLE = re.compile(r"'([^']*)'")
DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
PLAIN = re.compile(r"[^\r\n]*")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse(text: str, path: str) -> dict[str, str]:
    """Raises OptionError with the path and the line; no value is in it."""
    found: dict[str, str] = {}
    at = 0

    def wrong(what: str) -> OptionError:
        return OptionError(f"{path}:{text.count(chr(10), 0, at) + 1}: {what}")

    while at < len(text):
        if blank := BLANK.match(text, at):
            at = max(blank.end(), at + 1)
            continue
        begins = ASSIGNMENT.match(text, at)
        if not begins:
            raise wrong("must be NAME=VALUE")
        if not NAME.fullmatch(begins[1]):
            raise wrong(f"{begins[1]!r} is no name of a variable")
        value, end = _value(text, begins.end())
        if value is None:
            raise wrong(f"{begins[1]}: its quote is never closed")
        if "\0" in value:
            raise wrong(f"{begins[1]}: has a zero byte")
        rest = BLANK.match(text, end)
        if not rest:
            raise wrong(f"{begins[1]}: there is something behind its closing quote")
        found[begins[1]] = value
        at = max(rest.end(), at + 1)
    return found


def _value(text: str, at: int) -> tuple[str | None, int]:
    """And where it ends. None: a quote is not closed."""
    if text.startswith("'", at):
        single = SINGLE.match(text, at)
        return (single[1], single.end()) if single else (None, at)
    if text.startswith('"', at):
        double = DOUBLE.match(text, at)
        return (_unescaped(double[1]), double.end()) if double else (None, at)
    plain = PLAIN.match(text, at)
    assert plain is not None
    value = re.split(r"(?:^|[ \t])#", plain[0], maxsplit=1)[0]
    return value.rstrip(), plain.end()


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda one: ESCAPES.get(one[1], one[0]), text, flags=re.DOTALL)


def read(paths: Iterable[str]) -> dict[str, str]:
    """Of several the later goes before the earlier. Raises OptionError."""
    found: dict[str, str] = {}
    for path in paths:
        found.update(parse(read_text(path, "surrogateescape"), path))
    return found
