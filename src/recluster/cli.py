"""The command line: `python -m recluster [options] FILE | -m MODULE | -- COMMAND`."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
from typing import Any, NoReturn

from .checks import OptionError
from .cluster import Cluster
from .control import AUTO
from .doors import ClusterError
from .events import NAMES, Event
from .forked import Forked, become
from .options import FIELDS

USAGE = """\
python -m recluster [options] FILE.py [args...]
       python -m recluster [options] -m MODULE [args...]
       python -m recluster [options] -- COMMAND [args...]"""

EPILOG = """\
Signals to the master: USR2 or HUP reload, TERM or INT shut down gracefully (a
second INT at once), QUIT at once, TTIN/TTOU one worker more/less, USR1 is passed
on to workers that catch it. Durations are seconds. Exit code: 0 after an
asked-for end, 1 if no worker ever became ready, 2 for bad usage."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"recluster: {message}\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="recluster",
        usage=USAGE,
        description="Run N copies of an unmodified server as one cluster, and swap its code "
        "under live traffic.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for one in FIELDS:
        if one.name == "args":
            continue  # the words behind FILE or MODULE
        more: dict[str, Any] = {"action": "append"} if one.name in ("env", "bind") else {}
        text = f"{one.help} [{one.shown.replace('`', '')}; {one.variable}]".replace("%", "%%")
        made.add_argument(
            one.flag, metavar=one.metavar, default=argparse.SUPPRESS, help=text, **more
        )
    made.add_argument(
        "--events",
        metavar="FD",
        type=int,
        help="write events to this descriptor, as JSON lines",
    )
    made.add_argument("--version", action="store_true", help="print the version and exit")
    made.add_argument("-m", dest="module", metavar="MODULE", help="run a module, as python -m does")
    return made


def options_table() -> str:
    """The options as README.md shows them (a test compares)."""
    rows = ["| option | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for one in FIELDS:
        flag = "behind FILE or MODULE" if one.name == "args" else f"`{one.flag} {one.metavar}`"
        rows.append(f"| `{one.name}`, {flag} | `{one.variable}` | {one.shown} | {one.help} |")
    return "\n".join(rows)


def _split(words: list[str], made: argparse.ArgumentParser) -> tuple[list[str], str, list[str]]:
    """(our options, kind, the rest). Everything behind FILE, MODULE or -- is
    theirs, which argparse cannot be told."""
    takes_value = {
        text for action in made._actions if action.nargs != 0 for text in action.option_strings
    }
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


def _write_events(cluster: Cluster, fd: int) -> None:
    """One JSON line per event; whoever reads has gone: no more of them."""
    os.set_inheritable(fd, False)
    cluster._on_fork.append(lambda: os.close(fd))
    open_still = [True]

    def write(event: Event) -> None:
        said: dict[str, Any] = {"event": event.name}
        if event.worker is not None:
            worker = event.worker
            said.update(slot=worker.id, generation=worker.generation, pid=worker.pid)
        said.update(event.details)
        if open_still[0]:
            try:
                os.write(fd, json.dumps(said).encode() + b"\n")
            except OSError:
                open_still[0] = False

    for name in NAMES:
        cluster.on(name, write)


def make(words: list[str]) -> Cluster:
    """The cluster of a command line. Raises OptionError; exits for --help."""
    made = parser()
    ours, kind, theirs = _split(words, made)
    given = vars(made.parse_args(ours))
    given.pop("module")
    events = given.pop("events")
    if given.pop("version"):
        from . import __version__

        print(f"recluster {__version__}")
        raise SystemExit(0)
    if not kind or not theirs:
        raise OptionError("give a FILE.py, -m MODULE or -- COMMAND to run (see --help)")
    given.setdefault("control", os.environ.get("RECLUSTER_CONTROL") or AUTO)
    if kind == "command":
        cluster = Cluster(theirs, **given)
    else:
        given["args"] = theirs[1:]
        if kind == "module":
            cluster = Cluster(module=theirs[0], **given)
        else:
            cluster = Cluster(theirs[0], **given)
    if events is not None:
        try:
            os.fstat(events)
        except OSError:
            raise OptionError(f"--events: descriptor {events} is not open") from None
        _write_events(cluster, events)
    cluster._may_fork = True
    return cluster


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        cluster = make(sys.argv[1:] if words is None else words)
    except OptionError as error:
        print(f"recluster: {error}", file=sys.stderr)
        return 2
    # A collection in a forked worker would write to every object's page, and
    # so copy what is shared with the master.
    importlib.invalidate_caches()  # for all workers; the master imports nothing more
    gc.freeze()
    try:
        return cluster.run()
    except (ClusterError, OSError) as error:
        print(f"recluster: {error}", file=sys.stderr)
        return 1
    except Forked as error:
        worker = error
    # In a forked worker. The master's frames are unwound, so the program has the
    # stack to itself, and its end is the end of an ordinary interpreter.
    del cluster
    return become(worker)
