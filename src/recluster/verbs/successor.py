"""A command line that goes on with the workers of a master before (`recluster upgrade`), or only
says whether it could."""

from __future__ import annotations

import os
import sys

from ..master import heritage
from ..master.trial import READY
from ..options.checks import OptionError
from ..population.carried import Unknown


def left() -> heritage.Heritage | None:
    """By the master before, in this process; None: there was none. Raises Unknown, OSError."""
    said = os.environ.pop(heritage.MARK, None)
    if said is None:
        return None
    fd = int(said)
    try:
        return heritage.read(fd)
    finally:
        os.close(fd)


def check(words: list[str]) -> int:
    """`words`: the descriptor of what would be left, and the command line. Says READY, or why
    not; returns the exit code."""
    from . import cli

    try:
        found = heritage.read(int(words[0]))
        first = words[1] if len(words) > 1 else ""
        core = cli.make(words[2:] if first == "run" else words[1:], tries=True)
        heritage.check(core, found)
    except (OptionError, Unknown) as error:
        version = sys.modules[__package__.partition(".")[0]].__version__
        print(f"recluster {version}: {error}")
        return 1
    print(READY)
    return 0
