"""Ask a running master: `python -m recluster.ctl PID reload --wait`, `... PID status`.

The verbs of `recluster`, with the master in front of them: by PID, or --control PATH.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .verbs import VERBS

USAGE = f"""\
usage: python -m recluster.ctl [options] PID VERB [words]
       python -m recluster.ctl --control PATH [options] VERB [words]

Ask a running recluster master. Verbs: {", ".join(VERBS)}
(VERB --help tells more). `recluster VERB [NAME] [words]` is the same.

Exit code: 0 when it is done (reload without --wait: when it has begun), 1 when
the reload failed or the master ended, 2 when the master could not be asked."""
VALUED = ("--control", "--timeout", "--canary")


def _error(message: str) -> int:
    print(f"recluster.ctl: {message}", file=sys.stderr)
    return 2


def main(words: list[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    left = list(sys.argv[1:] if words is None else words)
    options: list[str] = []
    pid, verb = None, None
    while left and verb is None:
        word = left.pop(0)
        if word in ("-h", "--help"):
            print(USAGE)
            return 0
        if word.startswith("-"):
            options.append(word)
            options += [left.pop(0)] if word in VALUED and left else []
        elif pid is None and word.isdecimal():
            pid = int(word)
            if not 0 < pid < 1 << 31:
                return _error(f"{pid} is not the PID of a process")
        else:
            verb = word
    if verb is None:
        return _error(f"say what to do: {', '.join(VERBS)} (see --help)")
    if verb not in VERBS:
        return _error(f"unknown command {verb!r} (there is {', '.join(VERBS)})")
    family = import_module(f".verbs.{VERBS[verb]}", __package__)
    done: int = family.main(verb, [*options, *left], "recluster.ctl", pid)
    return done


if __name__ == "__main__":
    sys.exit(main())
