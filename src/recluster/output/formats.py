"""What a line of the log looks like: text, text in colour, as journald reads it, or JSON. Pure.

`fields` are those of an event (events.said): who it is about, and its details.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..base.levels import DEBUG, ERROR, INFO, LEVELS, WARNING

NAMES = {number: name for name, number in LEVELS.items()}

PROGRAM = "recluster: "
PRIORITIES = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3}  # syslog(3)
COLOURS = {DEBUG: "2", INFO: "32", WARNING: "33", ERROR: "1;31"}
SLOT_COLOURS = ("36", "35", "34", "32", "33", "96", "95", "94", "92", "93")
WORKERS_LEVEL = INFO

Fields = Mapping[str, Any]


def stamp(now: float, between: str = " ") -> str:
    """2026-11-24 02:28:14.123+00:00: local time, and how far it is from UTC."""
    local = time.localtime(now)
    sign, minutes = "-" if local.tm_gmtoff < 0 else "+", abs(local.tm_gmtoff) // 60
    return (
        time.strftime(f"%Y-%m-%d{between}%H:%M:%S", local)
        + f".{int(now % 1 * 1000):03d}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    )


class Text:
    """`line` is one of the master's; `output` one of a worker's, of which `ends` is false
    where it was cut. Both without a newline. `short`: for who looks on, the time of day, and
    a level only where something is wrong."""

    def __init__(self, short: bool = False) -> None:
        self._short = short

    def line(self, level: int, text: str, fields: Fields, now: float) -> str:
        when = stamp(now)[11:19] if self._short else stamp(now)
        named = self._level(level) if level > INFO or not self._short else ""
        return f"{self._when(when)} {named}{PROGRAM}{text}"

    def _when(self, text: str) -> str:
        return text

    def _level(self, level: int) -> str:
        return f"{NAMES[level].upper()} "

    def output(self, line: bytes, fields: Fields, ends: bool, now: float) -> bytes:
        return b"[%d] %s" % (fields["slot"], line)


class Colour(Text):
    def _when(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m"

    def _level(self, level: int) -> str:
        return f"\x1b[{COLOURS[level]}m{NAMES[level].upper()}\x1b[0m "

    def output(self, line: bytes, fields: Fields, ends: bool, now: float) -> bytes:
        """What colour the worker itself has left on ends with its line."""
        slot = fields["slot"]
        colour = SLOT_COLOURS[slot % len(SLOT_COLOURS)].encode()
        off = b"\x1b[0m" if b"\x1b[" in line else b""
        return b"\x1b[%bm[%d]\x1b[0m %b%b" % (colour, slot, line, off)


class Journal(Text):
    """The journal has the time, and reads the level from the first three signs."""

    def line(self, level: int, text: str, fields: Fields, now: float) -> str:
        return f"<{PRIORITIES[level]}>{PROGRAM}{text}"

    def output(self, line: bytes, fields: Fields, ends: bool, now: float) -> bytes:
        level = PRIORITIES[WORKERS_LEVEL]
        return b"<%d>%b" % (level, super().output(line, fields, ends, now))


class Json(Text):
    """One object a line, ASCII only."""

    def line(self, level: int, text: str, fields: Fields, now: float) -> str:
        return _object(now, level, text, fields)

    def output(self, line: bytes, fields: Fields, ends: bool, now: float) -> bytes:
        text = line.decode(errors="backslashreplace")
        more = fields if ends else {**fields, "partial": True}
        return _object(now, WORKERS_LEVEL, text, more).encode()


def _object(now: float, level: int, text: str, fields: Fields) -> str:
    first = {"time": stamp(now, "T"), "level": NAMES[level], "message": text}
    return json.dumps({**first, **fields}, default=str)


def choose(wanted: str, *, journal: bool, terminal: bool) -> Text:
    """For what the log leads to: a stream of the journal, a terminal, or else."""
    if wanted == "json":
        return Json()
    if wanted == "journal" or (wanted == "auto" and journal):
        return Journal()
    coloured = terminal and wanted in ("auto", "short")
    return Colour(wanted == "short") if coloured else Text(wanted == "short")


def is_journal(device: int, inode: int, environ: Mapping[str, str]) -> bool:
    """Whether JOURNAL_STREAM (systemd.exec(5)) names that file."""
    return environ.get("JOURNAL_STREAM") == f"{device}:{inode}"
