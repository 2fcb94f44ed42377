# A worker that writes when its first statement ran to descriptor BENCH_FD, and waits.
from time import monotonic_ns

NOW = monotonic_ns()

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

how = "forked" if "recluster" in sys.modules else "executed"
os.write(int(os.environ["BENCH_FD"]), f"{how} {os.environ['WORKER_ID']} {NOW}\n".encode())
signal.pause()
