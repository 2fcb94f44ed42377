"""`python -m recluster`, and the script `recluster`."""

import sys

from .child import startup


def main() -> int:
    startup.begin()
    from .verbs.entry import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
