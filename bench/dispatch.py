"""What dispatch costs: python bench/dispatch.py [--rounds 15] [--connections 4000]

Connections per second to a server that accepts, sends one byte and closes, with 16
clients: under `--balance reuseport` (plain accept), under round_robin and
least_connections by dispatch, and under a bare accept-and-pass master in C
(dispatch_pass.c) with the same Python worker. All run during the whole bench and take
turns in short rounds; what is compared is the median of the ratios within a round. Exit
code 1: dispatch reaches less than 0.9 of the bare master, or round_robin's counts
differ by more than 1 in a round of its own of 20,000 connections.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from common import BENCH, Master, arguments, compiled, free_port, machine, spread

APP = str(BENCH / "apps" / "accept_only.py")
LEAST = 0.9
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Server:
    """Something that listens on a port; `pid` is its master."""

    def __init__(self, name: str, workers: int, balance: str) -> None:
        self.name, self.port = name, free_port()
        # No privilege is to be used where there is one: dispatch is what is measured.
        self.master = Master(
            [APP, str(self.port)],
            workers=workers,
            options=["--balance", balance, "--balance-by", "dispatch"],
        )
        self.master.wait_ready(60.0)
        self.pid = self.master.pid

    def stop(self) -> None:
        self.master.stop()


class Bare:
    """The accept-and-pass master in C."""

    name = "bare pass (C)"

    def __init__(self, workers: int) -> None:
        command = [compiled("dispatch_pass.c"), "0", str(workers), sys.executable, APP, "3"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.port, self.pid = int(self.process.stdout.readline()), self.process.pid

    def stop(self) -> None:
        self.process.communicate(timeout=10.0)


def load(program: str, port: int, count: int, clients: int) -> dict:
    done = subprocess.run(
        [program, str(port), str(count), str(clients)], check=True, stdout=subprocess.PIPE
    )
    report = json.loads(done.stdout)
    if report["failed"] or report["connections"] != count:
        sys.exit(f"a connection failed: {report}")
    return report


def main() -> int:
    made = arguments(__doc__)
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--connections", type=int, default=4000)
    made.add_argument("--clients", type=int, default=16)
    made.add_argument("--workers", type=int, default=4)
    made.add_argument("--json", help="write the rates of each round there")
    given = made.parse_args()
    program, workers = compiled("dispatch_load.c"), given.workers
    print(machine())
    servers = [
        Bare(workers),
        Server("plain accept (reuseport)", workers, "reuseport"),
        Server("round_robin", workers, "round_robin"),
        Server("least_connections", workers, "least_connections"),
    ]
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    cost: dict[str, list[float]] = {server.name: [] for server in servers}
    try:
        for server in servers:
            load(program, server.port, given.connections, given.clients)
        for turn in range(given.rounds):
            for at in range(len(servers)):
                server = servers[(at + turn) % len(servers)]
                before = cpu(server.pid)
                report = load(program, server.port, given.connections, given.clients)
                rates[server.name].append(given.connections / report["seconds"])
                cost[server.name].append((cpu(server.pid) - before) / given.connections * 1e6)
        exact = {
            server.name: load(program, server.port, 20_000, given.clients)["seen"]
            for server in servers
            if server.name.startswith("round_robin")
        }
    finally:
        for server in servers:
            server.stop()
    print(f"{'':32}{'connections/s':>24}{'CPU us in master':>22}")
    for name, values in rates.items():
        print(f"{name:32}{spread(values, 0):>24}{statistics.mean(cost[name]):>18.1f}")
    failed = False
    for name, other, least in (
        ("round_robin", "bare pass (C)", LEAST),
        ("least_connections", "bare pass (C)", LEAST),
        ("round_robin", "plain accept (reuseport)", 0.0),
    ):
        ratios = [one / two for one, two in zip(rates[name], rates[other], strict=True)]
        median = statistics.median(ratios)
        failed |= median < least
        print(f"{name} / {other}: {spread(ratios)}" + (f" (bound {least})" if least else ""))
    for name, counts in exact.items():
        failed |= max(counts) - min(counts) > 1
        print(f"{name}, 20,000 connections: {counts}")
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"rates": rates, "cost": cost, "exact": exact}, file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
