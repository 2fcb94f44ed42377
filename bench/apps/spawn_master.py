"""`python -m recluster`, but notes when it spawns: spawn_master.py [options] FILE.

Before each spawn it writes "began SLOT NANOSECONDS" (CLOCK_MONOTONIC) to the
descriptor BENCH_FD. Started by spawn.py.
"""

import os
import sys
import time

from recluster import Cluster
from recluster.verbs.cli import main

FD = int(os.environ["BENCH_FD"])
spawn = Cluster._spawn


def noting(cluster, command, now):
    os.write(FD, f"began {command.slot} {time.monotonic_ns()}\n".encode())
    return spawn(cluster, command, now)


if __name__ == "__main__":
    Cluster._spawn = noting
    sys.exit(main())
