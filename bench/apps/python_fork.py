"""os.fork in a process with the modules of a recluster master: python_fork.py COUNT.

Each child writes when it came to be, and waits. stdout: "START END" per child,
CLOCK_MONOTONIC in nanoseconds. Started by spawn.py.
"""

import os
import sys
import time

import recluster.verbs.cli  # noqa: F401 - as large as the master


def main():
    count = int(sys.argv[1])
    (said, say), (held, hold) = os.pipe(), os.pipe()
    for _ in range(count):
        began = time.monotonic_ns()
        if os.fork() == 0:
            ended = time.monotonic_ns()
            os.close(hold)
            os.write(say, f"{began} {ended}\n".encode())
            os.read(held, 1)  # until the parent goes
            os._exit(0)
    os.close(say)
    with open(said) as lines:
        for _ in range(count):
            print(lines.readline(), end="")


if __name__ == "__main__":
    sys.exit(main())
