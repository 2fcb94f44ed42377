"""In a worker that was exec'd: be `python FILE` or `python -m MODULE`, as a forked one is.

Executed by its path, not imported: `python .../run.py CHANNEL DUMPS KIND NAME ARGS...`, because
the program that embeds a cluster may have found recluster where a fresh interpreter
would not look. What it adds to `python FILE`: the last line of a traceback goes to
the master, and a bind that a signal interrupts is repeated.
"""

import sys


def main() -> int:
    import os

    # As python leaves it, but for our own folder: become() puts the program's there.
    parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(0, parent)
    from recluster.forked import Forked, become
    from recluster.launch import Target

    sys.path.remove(parent)
    channel, dumps, kind, name, *args = sys.argv[1:]
    target, cwd = Target(kind, (name,)), os.getcwd()
    worker = Forked(target, tuple(args), {}, cwd, int(channel), dumps == "1")
    return become(worker)


if __name__ == "__main__":
    sys.exit(main())
