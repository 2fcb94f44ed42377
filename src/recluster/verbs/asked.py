"""A verb that asks one master one thing: its words, the request, what is printed.

Exit codes: 0 done; 1 it went wrong (a reload that failed, a master that ended or did not
answer in time); 2 it could not be asked.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from ..base.nearest import unknown_option
from ..control.asking import ANSWER_WITHIN, ask
from ..control.masters import Failed
from .tables import plain

INTERRUPTED = 130


class Usage(ValueError):
    """The words cannot be; the message says why."""


@dataclass(frozen=True)
class Verb:
    """`extra`: what is behind NAME, in words ("SLOT"), or nothing; `many`: one such word or
    more. `options`: adds its own. `request`: of the parsed options and the extra words; it
    may raise Usage. `lines`: of the answer. `fine`: of an answer that is ok, whether the exit
    code is 0."""

    name: str
    help: str
    request: Callable[[argparse.Namespace, list[str]], dict[str, Any]]
    lines: Callable[[dict[str, Any]], list[str]]
    extra: str = ""
    many: bool = False
    options: Callable[[argparse.ArgumentParser], object] = lambda made: None
    shown: str = ""  # its own options, in the usage line
    fine: Callable[[dict[str, Any]], bool] = lambda answer: True
    bare: Callable[[dict[str, Any]], object] = lambda answer: answer  # what --json prints


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as all of recluster does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[0]}: {message}\n")

    def parse_known_intermixed(self, words: list[str]) -> argparse.Namespace:
        given, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            self.error(unknown_option(unknown[0], list(self._option_string_actions)))
        return given


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return value


def whole(what: str, text: str, least: int) -> int:
    """Raises Usage."""
    if not text.isascii() or not text.isdigit() or not least <= int(text) < 65536:
        raise Usage(f"{what}: {text!r} must be a whole number of at least {least}")
    return int(text)


def _parser(verb: Verb, prog: str, named: bool) -> Parser:
    name = "" if named else " [NAME]"
    usage = f"{prog} {verb.name}{name}{verb.extra and ' ' + verb.extra}{verb.shown} [options]"
    made = Parser(
        prog=f"{prog} {verb.name}", usage=usage, description=verb.help, allow_abbrev=False
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    verb.options(made)
    made.add_argument("--json", action="store_true", help="the answer as one line of JSON")
    made.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        help=f"seconds to wait for the answer [{ANSWER_WITHIN:g}; with --wait: for ever]",
    )
    made.add_argument("--control", metavar="PATH", help="the control socket of the master")
    return made


def _split(verb: Verb, words: list[str], named: bool) -> tuple[str | None, list[str]]:
    """(NAME, the extra words). Raises Usage."""
    least = 1 if verb.extra else 0
    most = len(words) if verb.many else least
    name = None
    if not named and len(words) > least and (not verb.many or "=" not in words[0]):
        name, words = words[0], words[1:]
    if len(words) < least:
        raise Usage(f"{verb.name}: give {verb.extra}")
    if len(words) > most:
        raise Usage(f"{words[most]!r} is one word too many")
    return name, words


def speak_plainly() -> None:
    """A verdict may say what a terminal cannot."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def done(prog: str, act: Callable[[], int]) -> int:
    """The exit code of `act`, or of what has ended it; Ctrl-C: what was asked for goes on."""
    try:
        return act()
    except Failed as failure:
        print(f"{prog}: {failure}", file=sys.stderr)
        return failure.code
    except BrokenPipeError:  # `... status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def run(verb: Verb, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Ask, print, and return the exit code. `master`: a pid that was given already."""
    speak_plainly()
    named = "--control" in words or any(word.startswith("--control=") for word in words)
    made = _parser(verb, prog, named or master is not None)
    given = made.parse_known_intermixed(words)
    try:
        name, extra = _split(verb, given.words, named or master is not None)
        request = {"cmd": verb.name, **verb.request(given, extra)}
    except Usage as error:
        made.error(str(error))
    answer = partial(ask, request, master or name, given.control, given.timeout)
    return done(prog, lambda: _tell(verb, given, answer()))


def _tell(verb: Verb, given: argparse.Namespace, answer: dict[str, Any]) -> int:
    if "error" in answer:
        unknown = str(answer["error"]).startswith("unknown command")
        raise Failed(f"the master says: {plain(answer['error'])}", 2 if unknown else 1)
    lines = [json.dumps(verb.bare(answer))] if given.json else verb.lines(answer)
    print("\n".join(lines), flush=True)
    return 0 if answer["ok"] and verb.fine(answer) else 1
