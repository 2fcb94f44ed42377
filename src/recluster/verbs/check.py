"""check: what will work here for a command line, and why. Starts no worker.

Tries the doors and the balance policy for real, in an engine of its own, and looks at
what the system allows. Exit code: 0 it can start, 1 something that was asked for cannot be
had here, 2 the command line is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from .. import _engine
from ..base.cpus import cgroup_quota, usable_cpus
from ..base.text import say
from ..control.names import name_of
from ..master.supervisor import Supervisor
from ..options.checks import OptionError
from ..start import balancing, doors
from . import surroundings
from .advice import module_exists
from .cli import make, parser, split

USAGE = """\
usage: recluster check [options] FILE.py [args...] | -m MODULE [args...] | -- COMMAND [args...]

What will work here for this command line, and why: nothing is started.
With --print (before the program): each option's value and where it is from, as a
recluster.toml that says the same.
Exit code: 0 it can start, 1 something cannot be had here, 2 the command line is wrong."""

Finding = tuple[str, str, str]  # yes, no or note; topic; text


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    if words[:1] in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    if master is not None:
        print(f"{prog}: check is about a command line, not a master", file=sys.stderr)
        return 2
    words, prints = _without_print(words)
    try:
        core = make(words)
    except OptionError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    if prints:
        from . import printed

        say(printed.text(core.options, core.program.target))
        return 0
    found = list(_findings(core))
    width = max(len(topic) for _, topic, _ in found)
    say("\n".join(f"{mark.ljust(4)}  {topic.ljust(width)}  {text}" for mark, topic, text in found))
    return 1 if any(mark == "no" for mark, _, _ in found) else 0


def _without_print(words: list[str]) -> tuple[list[str], bool]:
    ours, _, _ = split(words, parser())
    if "--print" not in ours:
        return words, False
    at = ours.index("--print")
    return words[:at] + words[at + 1 :], True


def _findings(core: Supervisor) -> Iterator[Finding]:
    yield from _program(core)
    yield from _engine_tries(core)
    yield from surroundings.privileges(core.options)
    yield from surroundings.cgroup(core.options)
    yield from surroundings.limits(core.options)
    yield from surroundings.control(core.options)
    yield from surroundings.overlaps(core.options, core.program.target)


def _program(core: Supervisor) -> Iterator[Finding]:
    options, program = core.options, core.program
    how = "exec'd" if program.needs_exec else "forked from the master where the door allows it"
    words = " ".join(program.target.words)
    yield "yes", "program", f"{program.target.kind} {words}: workers are {how}"
    if program.target.kind == "module" and not module_exists(program.target.words[0]):
        yield "note", "program", f"no module {words} to be seen: the worker would find out"
    name = options.name or name_of(program.target)
    yield "yes", "name", f"{name}, or {name}-2 and so on beside another"
    quota = cgroup_quota()
    limit = "" if quota is None else f", the cgroup's quota is {quota:g}"
    if core.revision.path:
        yield "yes", "configuration", core.revision.path
    yield "yes", "workers", f"{options.workers}; {usable_cpus()} CPUs are usable here{limit}"


def _engine_tries(core: Supervisor) -> Iterator[Finding]:
    options = core.options
    engine = _engine.Engine(False)
    try:
        yield from _tried(
            "door",
            lambda say: f"{doors.NAMES[doors.choose(engine, options.door, say)]} (tried)",
        )
        yield from _tried("balance", lambda say: balancing.choose(engine, options, say))
    finally:
        engine.close()


def _tried(topic: str, choose: Callable[[Callable[[str], None]], str]) -> Iterator[Finding]:
    said: list[str] = []
    try:
        chosen = choose(said.append)
    except (doors.ClusterError, OSError) as error:
        yield "no", topic, str(error)
        return
    yield "yes", topic, chosen
    for line in said:
        yield "note", topic, line
