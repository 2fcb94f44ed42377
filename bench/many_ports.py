"""What a listener costs the master: python bench/many_ports.py [--ports 50 100 200 300]

Two workers listen on so many ports. CPU time of the master, all its threads, for start,
reload (until the old workers are gone) and shutdown, beyond that with one port, per lane:
one that grows with the number of ports is not linear. With each way of steering that works
here: eBPF (`--balance auto` with CAP_BPF) and the classic program (without). Exit code 1:
the median of a reload or of a shutdown is above the bound.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import BENCH, Late, Master, arguments, machine, spread

DEADLINE = 120.0
PHASES = ("start", "reload", "shutdown")


def cpu_ms(pid: int) -> float:
    """By its CPU clock (clock_getcpuclockid(3)); a zombie has it still."""
    return time.clock_gettime((~pid << 3) | 2) * 1e3


def free_ports(count: int) -> list[str]:
    """Outside of those that the kernel gives to clients."""
    most = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[str] = []
    with contextlib.ExitStack() as held:
        for port in range(2000 + os.getpid() * 7 % 10000, most):
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(str(port))
            if len(found) == count:
                return found
    raise Late(f"there are no {count} free ports")


def end_of(pid: int) -> None:
    """Until it is a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def run(ports: int, workers: int, options: list[str]) -> dict[str, float]:
    """Milliseconds of CPU by phase."""
    server = [str(BENCH / "apps" / "many_ports.py"), *free_ports(ports)]
    master = Master(server, workers=workers, options=options, log=subprocess.DEVNULL)
    try:
        master.wait_ready(DEADLINE)
        started = cpu_ms(master.pid)
        master.process.send_signal(signal.SIGHUP)
        gone = 0
        while gone < workers:
            gone += master.events.next(DEADLINE)["event"] == "exit"
        reloaded = cpu_ms(master.pid)
        master.process.send_signal(signal.SIGTERM)
        end_of(master.pid)
        ended = cpu_ms(master.pid)
        return {"start": started, "reload": reloaded - started, "shutdown": ended - reloaded}
    finally:
        master.stop()


def per_lane(given: argparse.Namespace, options: list[str]) -> bool:
    """Whether the bound holds."""
    lanes = {ports: (ports - 1) * given.workers for ports in given.ports}
    taken: dict[tuple[int, str], list[float]] = {}
    alone: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for _ in range(given.rounds):
        for phase, cost in run(1, given.workers, options).items():
            alone[phase].append(cost)
    for _ in range(given.rounds):
        for ports in given.ports:
            for phase, cost in run(ports, given.workers, options).items():
                beyond = cost - statistics.median(alone[phase])
                taken.setdefault((ports, phase), []).append(beyond * 1e3 / lanes[ports])
    print("  with 1 port:", *(f"{phase} {spread(alone[phase], 1)} ms" for phase in PHASES))
    for ports in given.ports:
        costs = (f"{phase} {spread(taken[ports, phase], 0)}" for phase in PHASES)
        print(f"  {ports:4} ports, us per lane:", ", ".join(costs))
    return all(
        statistics.median(taken[ports, phase]) <= given.bound
        for ports in given.ports
        for phase in PHASES[1:]
    )


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--ports", type=int, nargs="+", default=[50, 100, 200, 300])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bound", type=float, default=200, help="us per lane, reload and shutdown")
    parser.add_argument("--balance", nargs="+", default=["auto", "reuseport"])
    given = parser.parse_args()
    print(machine())
    held = True
    for balance in given.balance:
        print(f"--balance {balance} (min / median / max):")
        held &= per_lane(given, ["--balance", balance])
    print("the bound holds" if held else f"FAILED: above {given.bound:g} us per lane")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
