"""What runs a server: `recluster [options] FILE | -m MODULE | -- COMMAND`."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from typing import Any, NoReturn

from ..base.text import say
from ..child import startup
from ..child.forked import Forked, become
from ..events import NAMES
from ..master import heritage
from ..master.driving import Driving
from ..master.settings import Settings
from ..master.supervisor import Supervisor
from ..options import FIELDS, configfile
from ..options.checks import AUTO, OptionError
from ..output.eventlines import EventLines
from ..output.log import complain
from ..population.carried import Unknown
from ..start.doors import ClusterError
from . import development, successor


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"recluster: {message}\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(prog="recluster", add_help=False, allow_abbrev=False)
    for one in FIELDS:
        if one.name == "args":
            continue  # the words behind FILE or MODULE
        flags = [one.short, one.flag] if one.short else [one.flag]
        if not one.metavar:
            more: dict[str, Any] = {"action": "store_const", "const": "yes"}
        else:
            more = {} if one.bare is None else {"nargs": "?", "const": one.bare}
            more |= {"metavar": one.metavar, "action": "append" if one.repeated else "store"}
        made.add_argument(*flags, default=argparse.SUPPRESS, **more)
    made.add_argument("--events", metavar="PATH|FD|-")
    made.add_argument("-c", "--config", metavar="FILE", default=argparse.SUPPRESS)
    made.add_argument("-m", dest="module", metavar="MODULE")
    for flags in (["--version"], ["-h", "--help"], ["--help-all"]):
        made.add_argument(*flags, action="store_true")
    return made


def options_table() -> str:
    """The options as docs/options.md shows them (a test compares)."""
    rows = ["| option | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for one in FIELDS:
        flag = "behind FILE or MODULE" if one.name == "args" else f"`{one.usage}`"
        flag = f"`{one.short}`, {flag}" if one.short else flag
        variable = f"`{one.variable}`" if one.variable else "none"
        rows.append(f"| `{one.name}`, {flag} | {variable} | {one.shown} | {one.help} |")
    return "\n".join(rows)


def split(words: list[str], made: argparse.ArgumentParser) -> tuple[list[str], str, list[str]]:
    """(our options, kind, the rest). Everything behind FILE, MODULE or -- is
    theirs, which argparse cannot be told."""
    valued = [action for action in made._actions if action.nargs not in (0, "?")]
    takes_value = {text for action in valued for text in action.option_strings}
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return words[:at], "command", words[at + 1 :]
        if word == "-m":
            return words[:at], "module", words[at + 1 :]
        if word.startswith("-m") and not word.startswith("--"):
            return words[:at], "module", [word[2:], *words[at + 1 :]]
        if not word.startswith("-"):
            return words[:at], "file", words[at:]
        at += 2 if word in takes_value and "=" not in word else 1
    return words, "", []


def _print_what_is_asked(given: dict[str, Any]) -> None:
    asked = [name for name in ("help", "help_all", "version") if given.pop(name)]
    if not asked:
        return
    from .. import __version__
    from . import help

    text = {"help": help.short, "help_all": help.full}.get(asked[0])
    say(text() if text else f"recluster {__version__}")
    raise SystemExit(0)


def _supervisor(
    target: str | list[str] | None, given: dict[str, Any], module: str | None = None
) -> Supervisor:
    return Supervisor(Settings(target, module, given.pop("config"), given))


def _of_file(words: list[str], given: dict[str, Any]) -> Supervisor:
    try:
        return _supervisor(words[0], given)
    except OptionError as error:
        if "does not exist" not in str(error):
            raise
        from .advice import instead_of_file

        meant = instead_of_file(words)
        raise OptionError(f"{error}; {meant}" if meant else str(error)) from None


def _config(named: str | None, has_target: bool) -> str | None:
    """The configuration file: the one that is named, or the one in the working directory,
    if that is meant. What is there for another program is not."""
    named = named or os.environ.get("RECLUSTER_CONFIG")
    if named:
        return None if named == "none" else named
    path, why = configfile.lookup()
    if path and has_target and configfile.read(path).target:
        path, why = None, f"{path} names a program of its own: it is not used (-c {path} would)"
    if why:
        print(f"recluster: {why}", file=sys.stderr)
    return path


def make(words: list[str], *, dev: bool = False, tries: bool = False) -> Supervisor:
    """The master of a command line. Raises OptionError; exits for --help. `dev`: with the
    defaults of `recluster dev`. `tries`: it is not to be started."""
    made = parser()
    ours, kind, theirs = split(words, made)
    parsed, unknown = made.parse_known_args(ours)
    given = vars(parsed)
    given.pop("module")
    events = given.pop("events")
    _print_what_is_asked(given)
    if unknown:
        from ..base.nearest import unknown_option

        raise OptionError(unknown_option(unknown[0], list(made._option_string_actions)))
    path = given["config"] = _config(given.pop("config", None), bool(kind))
    config = configfile.read(path) if path else configfile.NOTHING
    if not theirs and (kind or not config.target):
        nowhere = f", for {path} names no program either" if path and not kind else ""
        raise OptionError(f"give a FILE.py, -m MODULE or -- COMMAND to run (see --help){nowhere}")
    if "control" not in config.values:
        given.setdefault("control", os.environ.get("RECLUSTER_CONTROL") or AUTO)
    if dev:
        development.prepare(given, config.values)
    if not kind:
        core = _supervisor(None, given)
    elif kind == "command":
        core = _supervisor(theirs, given)
    else:
        given["args"] = theirs[1:]
        named = kind == "module"
        core = _supervisor(None, given, theirs[0]) if named else _of_file(theirs, given)
    if events is not None and not tries:
        lines = EventLines(events, lambda: core.population.generation)
        core.outputs.append(lines.sink)
        core.given_fds += lines.given
        for name in NAMES:
            core.publisher.emitter.on(name, lines.write)
    core.may_fork = True
    core.may_upgrade = not dev
    core.keeps_terminal = dev and development.keeps_terminal(core.options)
    return core


def main(words: list[str] | None = None, *, dev: bool = False) -> int:
    """Run the command line; returns the exit code."""
    succeeds = heritage.MARK in os.environ  # then signals wait (master/succeeding.py)
    if not succeeds:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # who starts us may have blocked our end
    startup.begin()  # for whoever has come here by another way than __main__
    try:
        left = successor.left()
        core = make(sys.argv[1:] if words is None else words, dev=dev)
        core.heritage = left
    except (OptionError, Unknown) as error:
        print(f"recluster: {error}", file=sys.stderr)
        return 2
    startup.forget()
    # A collection in a forked worker would write to every object's page, and
    # so copy what is shared with the master.
    gc.freeze()
    try:
        return Driving(core).run()
    except (ClusterError, OSError) as error:
        lost = "the new version cannot go on, and the workers end with it: " * succeeds
        complain(core.options, f"{lost}{error}")
        return 1
    except Forked as error:
        worker = error
    # In a forked worker. The master's frames are unwound, so the program has the
    # stack to itself, and its end is the end of an ordinary interpreter.
    del core
    return become(worker)
