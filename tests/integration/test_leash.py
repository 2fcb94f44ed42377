"""The tests' own leash: a test process that is killed leaves nothing behind."""

import signal
import subprocess
import sys

from harness import GENEROUS, Pidfd

PROGRAM = """
import sys
from pathlib import Path
from harness import Running
with Running("--workers", 2, "asyncio_server.py", "0", cwd=Path(sys.argv[1])) as cluster:
    cluster.wait_each("ready", 2)
    print(cluster.process.pid, *cluster.pids().values(), flush=True)
    sys.stdin.read()
"""


def test_a_test_process_that_is_killed_leaves_nothing(apps):
    program = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{PROGRAM}", apps]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as test:
        pidfds = [Pidfd(int(pid)) for pid in test.stdout.readline().split()]
        test.send_signal(signal.SIGKILL)
    assert len(pidfds) == 3 and all(one.is_dead(GENEROUS) for one in pidfds)
    for one in pidfds:
        one.close()
