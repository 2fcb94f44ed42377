"""What `--help` and `--help-all` print: the options in groups, the most wanted first."""

from __future__ import annotations

import textwrap
from typing import Any

from ..options.fields import GROUPS
from ..options.fields.field import Field

USAGE = """\
usage: recluster [run] [options] FILE.py [args...]
       recluster [run] [options] -m MODULE [args...]
       recluster [run] [options] -- COMMAND [args...]
       recluster dev [options] TARGET | recluster VERB [NAME] ...

Run N copies of an unmodified server as one cluster, and swap its code under
live traffic: recluster -w 4 -m uvicorn main:app"""

VERBS = """\
Verbs (VERB --help tells more; upgrade: to the recluster that is installed now)
  check, init: before a start; ls, status, top, health, logs: what runs, and how
  reload, weights, promote, rollback, scale, restart, drain, resume, stop"""

END = """\
Durations are seconds. Signals: USR2 or HUP reload, TERM or INT shut down (a
second INT at once), QUIT kills, TTIN/TTOU one worker more/less, USR1 is passed
on. Exit code: 0 after an asked-for end, 1 if nothing got ready, 2: bad usage."""

EXPERT = "Expert"
OTHERS = (
    ("-m MODULE", "run a module, as python -m does"),
    ("-c, --config FILE", "[recluster.toml, or a table in pyproject.toml]"),
    ("--version", "print the version and exit"),
    ("-h, --help", "this; --help-all: all there is to know of each"),
)
EVENTS = ("--events PATH|FD|-", "write events as JSON lines: to a file, a descriptor or stdout")
LEFT, WIDTH = 27, 80


def flags(one: Field[Any]) -> str:
    return f"{one.short}, {one.usage}" if one.short else one.usage


def _row(left: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - LEFT, break_on_hyphens=False)
    if len(left) > LEFT - 4:
        return [f"  {left}", *(" " * LEFT + line for line in lines)]
    first, *rest = lines
    return [f"  {left}".ljust(LEFT) + first, *(" " * LEFT + line for line in rest)]


def _fields(title: str) -> list[Field[Any]]:
    return [one for one in GROUPS[title] if one.name != "args"]


def short() -> str:
    """On one screen."""
    lines, rest = [USAGE], []
    for title in GROUPS:
        rows = []
        for one in _fields(title):
            if one.brief is None:
                rest.append(one.flag)
            else:
                rows += _row(flags(one), one.brief)
        if title == "Basics":
            for left, text in OTHERS:
                rows += _row(left, text)
        lines += ["", title, *rows] if rows else []
    names = ", ".join([*rest, "--events"])
    lines += ["", *textwrap.wrap(f"{EXPERT} (--help-all): {names}", WIDTH, break_on_hyphens=False)]
    return "\n".join([*lines, "", VERBS, "", END])


def full() -> str:
    lines = [USAGE]
    for title in GROUPS:
        lines += ["", title]
        for one in _fields(title):
            shown = one.shown.replace("`", "")
            lines += _row(flags(one), f"{one.help} [{shown}; {one.variable}]")
        for left, text in OTHERS if title == "Basics" else [EVENTS] if title == EXPERT else []:
            lines += _row(left, text)
    return "\n".join([*lines, "", VERBS, "", END])
