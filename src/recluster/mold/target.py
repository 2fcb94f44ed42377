"""What a mold can run: FILE, MODULE, or a COMMAND that is this very interpreter with one of these.

Owns how the first words of a command are read: `python FILE`, `python -m MODULE`, and a script
whose first line names the interpreter (uvicorn, gunicorn, flask: what pip puts into bin).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ..child.launch import Program, Target, changed, interpreter

LINE_MOST = 4096
# pip's way where the interpreter's path is too long for a first line.
SHELL = re.compile(rb"#!/bin/sh\n'''exec' \"?([^\"\n]+?)\"? \"\$0\" \"\$@\"\n")


@dataclass(frozen=True)
class Run:
    """`python`: the interpreter and its flags."""

    python: tuple[str, ...]
    target: Target
    args: tuple[str, ...]


def _is_ours(path: str) -> bool:
    """The same file at the same place: a virtual environment is known by that."""
    try:
        same = os.path.samefile(path, sys.executable)
    except OSError:
        return False
    folders = (os.path.dirname(os.path.abspath(one)) for one in (path, sys.executable))
    return same and len(set(map(os.path.realpath, folders))) == 1


def _interpreter_of(script: str) -> str | None:
    try:
        fd = os.open(script, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        head = os.pread(fd, LINE_MOST, 0)
    except OSError:
        return None
    finally:
        os.close(fd)
    if found := SHELL.match(head):
        return os.fsdecode(found[1])
    first = head.split(b"\n", 1)[0]
    return os.fsdecode(first[2:].strip()) if first.startswith(b"#!") else None


def _of_python(words: list[str]) -> Run | None:
    if len(words) > 2 and words[1] == "-m":
        return Run((words[0],), Target("module", (words[2],)), tuple(words[3:]))
    if len(words) > 1 and not words[1].startswith("-"):
        return Run((words[0],), Target("file", (words[1],)), tuple(words[2:]))
    return None  # flags of the interpreter, or nothing to run


def of_command(words: list[str]) -> Run | None:
    """`words`: the path of the program, and its arguments."""
    if _is_ours(words[0]):
        return _of_python(words)
    python = _interpreter_of(words[0])
    if python is None or not _is_ours(python):
        return None
    return Run((python,), Target("file", (words[0],)), tuple(words[1:]))


def run_of(program: Program, environ: Mapping[str, str]) -> Run | None:
    """Looked at anew for each mold. None: it is no program of this interpreter. Raises OSError
    where the command is gone."""
    if program.target.kind == "command":
        return of_command(program.command(environ))
    return Run(tuple(interpreter()), program.target, program.args)


def mold_environ(program: Program) -> dict[str, str]:
    """Of a mold: what differs between workers is not there yet."""
    unset = dict.fromkeys(("WORKER_ID", "NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE"))
    return changed(os.environ, {**program.changes(), **unset})


def can_be(program: Program) -> bool:
    try:
        return run_of(program, mold_environ(program)) is not None
    except OSError:
        return False
