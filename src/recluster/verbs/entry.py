"""`recluster`, and `python -m recluster`: a verb, or a server to run.

Imports neither side before it is known: a probe (`health`) has 20 ms.
"""

from __future__ import annotations

import sys

from . import VERBS


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    asked, words = words, sys.argv[1:] if words is None else words
    if words and words[0] in VERBS:
        from importlib import import_module

        family = import_module(f".{VERBS[words[0]]}", __package__)
        done: int = family.main(words[0], words[1:])
        return done
    if words and words[0] == "--check-state":  # of `master.trial`
        from .successor import check

        return check(words[1:])
    if asked is None:  # the process is ours
        from ..child import preloaded

        preloaded.begin(words)
    from .cli import main as run

    first = words[0] if words else ""
    return run(words[1:] if first in ("run", "dev") else words, dev=first == "dev")
