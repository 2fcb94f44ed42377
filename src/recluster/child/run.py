"""In a worker that was exec'd: be `python FILE` or `python -m MODULE`, as a forked one is.

Executed by its path, not imported: `python .../run.py CHANNEL HOW KIND NAME ARGS...`, because
the program that embeds a cluster may have found recluster where a fresh interpreter
would not look. What it adds to `python FILE`: the last line of a traceback goes to
the master, and a bind that a signal interrupts is repeated.
"""

import sys


def main() -> int:
    import os

    # As python leaves it, but for our own folder: become() puts the program's there.
    parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, parent)
    from recluster.child import startup

    sys.path.remove(parent)
    if startup.has_own_path():
        del sys.path[0]
    from recluster.child.forked import Forked, become
    from recluster.child.launch import Target

    channel, how, kind, name, *args = sys.argv[1:]
    worker = Forked(
        Target(kind, (name,)),
        tuple(args),
        {},
        os.getcwd(),
        int(channel),
        how[1:],
        fresh=True,
    )
    return become(worker)


if __name__ == "__main__":
    sys.exit(main())
