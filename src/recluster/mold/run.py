"""A mold: `python .../mold/run.py CHANNEL HOW MODULES KIND NAME ARGS...`. See child/run.py."""

import sys


def main() -> int:
    import os

    parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, parent)
    from recluster.child import startup

    sys.path.remove(parent)
    if startup.has_own_path():
        del sys.path[0]
    from recluster.mold.cast import cast

    become = cast(*sys.argv[1:])
    return become()


if __name__ == "__main__":
    sys.exit(main())
