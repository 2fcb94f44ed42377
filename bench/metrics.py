"""What a scrape costs the master: python bench/metrics.py [--workers 4 16 64 256]

For each number of workers of examples/stdlib_server.py: CPU time of the master (schedstat,
to the nanosecond) for each of so many scrapes of --metrics, one after the other, with a
pause between them so that none is given the text of the one before; and how long a scrape
takes for who asks. The first scrapes, which look at each worker's PSS, are apart. *Cold*: a
quarter of a second and a walk over 64 MiB of memory lie before each, so that nothing of the
master's is left in a cache. Bound: 1 ms of CPU per scrape for 16 workers, both ways.
"""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import EXAMPLES, Late, Master, arguments, free_port, machine

DEADLINE = 60.0
PAUSE = 0.01
COLD_PAUSE, COLD_WALK = 0.25, 64 << 20


def cpu_ms(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def scrape(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
    if not data.endswith(b"# EOF\n"):
        raise Late("an answer was cut off")
    return data


def walk() -> None:
    """Leaves nothing of others in the caches."""
    memory = bytearray(COLD_WALK)
    for at in range(0, COLD_WALK, 64):
        memory[at] = 1


def measure(
    pid: int, port: int, scrapes: int, cold: bool = False
) -> tuple[list[float], list[float]]:
    """(CPU of the master, time for who asks), in ms, of each scrape. A text is given again for
    ten times as long as it took, by the clock."""
    cpu: list[float] = []
    took: list[float] = []
    for _ in range(scrapes):
        time.sleep(max(COLD_PAUSE if cold else PAUSE, 0.015 * took[-1] if took else 0.0))
        if cold:
            walk()
        before, began = cpu_ms(pid), time.perf_counter()
        scrape(port)
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.002)  # it lets go of the connection
        cpu.append(cpu_ms(pid) - before)
    return cpu, took


def row(name: str, values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"  {name:<24} {low:7.3f} {statistics.median(values):7.3f} {high:7.3f} ms"


def one(workers: int, scrapes: int) -> float:
    port = free_port()
    server = [str(EXAMPLES / "stdlib_server.py"), str(free_port())]
    options = ["--metrics", f"127.0.0.1:{port}", "--boots", "16"]
    master = Master(server, workers=workers, options=options, log=subprocess.DEVNULL)
    try:
        master.wait_ready(DEADLINE)
        first, _ = measure(master.pid, port, 5)
        cpu, took = measure(master.pid, port, scrapes)
        cold, _ = measure(master.pid, port, scrapes // 5, cold=True)
        size = len(scrape(port))
        found = re.findall(rb"recluster_worker_info\{", scrape(port))
        assert len(found) == workers, f"{len(found)} workers are told of"
    finally:
        master.stop()
    print(f"{workers} workers, {size} bytes, {scrapes} scrapes (min / median / max)")
    print(row("CPU of the first 5", first))
    print(row("CPU of the master", cpu))
    print(row("the same, cold", cold))
    print(row("time for who asks", took), flush=True)
    return max(statistics.median(cpu), statistics.median(cold))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--scrapes", type=int, default=100)
    parser.add_argument("--bound", type=float, default=1.0, help="ms, for 16 workers and fewer")
    given = parser.parse_args()
    print(machine())
    medians = {workers: one(workers, given.scrapes) for workers in given.workers}
    over = [
        f"{n} workers: {ms:.3f} ms" for n, ms in medians.items() if n <= 16 and ms > given.bound
    ]
    print(f"FAILED: above {given.bound:g} ms: {', '.join(over)}" if over else "within the bound")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
