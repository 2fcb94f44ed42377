"""The command line that a file is made for: what of it others have to know."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property

from ...child.launch import Target, logical_cwd
from ...control.names import name_of
from ...options import FIELDS, Options
from ...options.checks import split_address
from ..cli import make, parser, split

Address = tuple[str, str, int]  # ("unix", PATH, 0) or ("tcp", HOST, PORT)

GUESS: Address = ("tcp", "127.0.0.1", 8000)
_PLACE = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):)?([0-9]{2,5})")
_PORTS = ("--port", "-p", "--bind", "-b", "--listen", "--http", "--address")
_PATHS = ("--uds", "--unix-socket")
MARGIN = 10  # seconds beyond our own limits until somebody else's may strike


@dataclass(frozen=True)
class Subject:
    """`ours` are the options of the command line without --cwd, `theirs` what is behind it.
    `typed`: what was asked for, in words."""

    typed: str
    options: Options
    target: Target
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    start: str  # where it was typed, links kept

    @classmethod
    def of(cls, what: str, words: list[str]) -> Subject:
        """Raises OptionError."""
        core = make(list(words))
        ours, kind, theirs = split(words, parser())
        behind = {"module": ["-m"], "command": ["--"]}.get(kind, [])
        return cls(
            " ".join(["recluster init", what, *words]),
            core.options,
            core.program.target,
            tuple(_without_cwd(ours)),
            (*behind, *theirs),
            logical_cwd(),
        )

    @cached_property
    def name(self) -> str:
        return self.options.name or name_of(self.target)

    @cached_property
    def cwd(self) -> str | None:
        """What --cwd has to say: a path through a link, which a reload is to follow anew."""
        if self.options.cwd is not None:
            return os.path.normpath(os.path.join(self.start, self.options.cwd))
        return self.start if self.start != os.path.realpath(self.start) else None

    @property
    def folder(self) -> str:
        """Where the master starts: beside the link, not behind it."""
        return os.path.dirname(self.cwd) if self.cwd else self.start

    def words(self) -> list[str]:
        """The whole command line, wherever it is typed."""
        return [*self.ours, *(["--cwd", self.cwd] if self.cwd else []), *self.theirs]

    def words_inside(self) -> list[str]:
        """In an image, where the folder it was typed in is the working directory."""
        given = ["--cwd", self.options.cwd] if self.options.cwd else []
        return [*self.ours, *given, *self.theirs]

    @property
    def interpreter(self) -> str:
        return os.path.abspath(sys.executable)

    @cached_property
    def environment(self) -> dict[str, str]:
        """What of the environment has made the options what they are."""
        return {
            one.variable: os.environ[one.variable] for one in FIELDS if os.environ.get(one.variable)
        }

    @cached_property
    def address(self) -> Address | None:
        """Where it listens, as --bind or the program's words say; None where nothing does."""
        if self.options.bind:
            return split_address(self.options.bind[0])
        return _address_in([*self.target.words[1:], *self.options.args])

    @property
    def stops_within(self) -> int:
        """Seconds from the stop signal to the end of the last worker, at most."""
        return int(self.options.shutdown_delay + self.options.shutdown_timeout + 0.999) + MARGIN

    @property
    def starts_within(self) -> int | None:
        """Seconds of a reload, in which workers boot a few at a time; None: any time."""
        if self.options.ready_timeout is None:
            return None
        turns = -(-self.options.workers // self.options.boots)
        return int(self.options.ready_timeout * turns + 0.999) + MARGIN


def _without_cwd(words: list[str]) -> list[str]:
    left, kept = list(words), []
    while left:
        word = left.pop(0)
        if word == "--cwd":
            left[:1] = []
        elif not word.startswith("--cwd="):
            kept.append(word)
    return kept


def _place(text: str) -> Address | None:
    if text.startswith("unix:"):
        return "unix", text[5:], 0
    found = _PLACE.fullmatch(text)
    if not found or not 0 < int(found[2]) < 65536:
        return None
    return "tcp", (found[1] or "").strip("[]") or "127.0.0.1", int(found[2])


def _address_in(words: list[str]) -> Address | None:
    host = ""
    bare: Address | None = None
    flagged: Address | None = None
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        value = value if equals else words[at + 1] if at + 1 < len(words) else ""
        if flag in _PATHS and value:
            return "unix", value, 0
        if flag == "--host":
            host = value.strip("[]")
        elif flag in _PORTS:
            flagged = flagged or _place(value)
        elif bare is None and not word.startswith("-") and (":" in word or word.isdigit()):
            bare = _place(word)
    found = flagged or bare
    if found and host and found[0] == "tcp":
        return "tcp", host, found[2]
    return found
