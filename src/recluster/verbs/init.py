"""init: prints a file for whoever starts this command line, or stands in front of it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..base.nearest import nearest
from ..options.checks import OptionError
from .files import containers, proxies, systemd
from .files.subject import Subject

KINDS: dict[str, Callable[[Subject], str]] = {
    "systemd": systemd.unit,
    "docker": containers.dockerfile,
    "kubernetes": containers.manifest,
    "nginx": proxies.nginx,
    "haproxy": proxies.haproxy,
}
USAGE = f"""\
usage: recluster init {"|".join(KINDS)} [options] FILE.py [args...]
                      ... [options] -m MODULE [args...] | [options] -- COMMAND [args...]

A correct file for this command line: a unit, a Dockerfile, a manifest, or the
configuration of a proxy in front. It is printed; nothing is written or started."""


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    if not words or words[0] in ("--help", "-h"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    make = KINDS.get(words[0])
    if make is None or master is not None:
        meant = nearest(words[0], list(KINDS))
        hint = f"; did you mean {meant}?" if meant else ""
        print(f"{prog}: init: {words[0]!r} is not one of {', '.join(KINDS)}{hint}", file=sys.stderr)
        return 2
    try:
        print(make(Subject.of(words[0], words[1:])))
    except OptionError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0
