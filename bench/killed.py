"""What the kill -9 of a worker costs clients: python bench/killed.py [--kills 10]

Clients ask, a connection for each request, while one slot's worker is killed again and again.
Lost may be only what the killed worker had accepted: at most one request of each client's for
each kill. What waits in its lane is for its siblings. Exit code 1 if a request fails that was
not cut off like that, or if the slowest is slower than the slowest of the steady state, before
and after, by more than the bound.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

from common import BENCH, Master, arguments, free_port, machine

DEADLINE = 60.0
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
EXAMPLES = BENCH.parent / "examples"
SERVERS = {
    "asyncio": ["asyncio_server.py", "PORT"],
    "http.server": ["stdlib_server.py", "PORT"],
    "uvicorn+uvloop": ["-m", "uvicorn", "uvicorn_app:app", "--loop", "uvloop", "--port", "PORT",
                       "--log-level", "error"],
    "node": ["--", "node", "node_server.js", "PORT"],
}  # fmt: skip


class Clients:
    """`took`: ms of each request, by phase; `cut`: accepted, no answer; `failed`: all else."""

    def __init__(self, port: int, count: int) -> None:
        self.phase, self.port = "steady", port
        self.took: dict[str, list[float]] = {"steady": [], "kills": []}
        self.cut, self.failed = 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for one in self._threads:
            one.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            phase, began = self.phase, time.perf_counter()
            try:
                with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as connection:
                    whole = self._ask(connection)
            except OSError as error:
                self.failed.append(repr(error))
                continue
            self.cut += not whole
            if whole:
                self.took[phase].append((time.perf_counter() - began) * 1000)

    def _ask(self, connection: socket.socket) -> bool:
        data = b""
        try:
            connection.sendall(REQUEST)
            while piece := connection.recv(4096):
                data += piece
        except ConnectionError:
            return False
        return b"\r\n\r\n" in data

    def stop(self) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()


def one(name: str, given: argparse.Namespace) -> bool:
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in SERVERS[name]]
    master = Master(
        words, workers=given.workers, cwd=EXAMPLES, log=subprocess.DEVNULL,
        options=["--respawn", "0.1"],
    )  # fmt: skip
    try:
        victim = next(one["pid"] for one in master.wait_ready(DEADLINE) if one["slot"] == 1)
        clients = Clients(port, given.clients)
        try:
            time.sleep(given.seconds)
            clients.phase = "kills"
            for _ in range(given.kills):
                os.kill(victim, signal.SIGKILL)
                victim = master.events.until(
                    lambda said: said["event"] == "ready" and said["slot"] == 1, DEADLINE
                )["pid"]
                time.sleep(given.seconds / given.kills)
            clients.phase = "steady"
            time.sleep(given.seconds)
        finally:
            clients.stop()
    finally:
        master.stop()
    steady, kills = clients.took["steady"], clients.took["kills"]
    later = max(kills) - max(steady)
    print(
        f"{name:15} steady {len(steady):6} requests, median {statistics.median(steady):.1f}, "
        f"slowest {max(steady):.0f} ms; {given.kills} kills {len(kills):6} requests, median "
        f"{statistics.median(kills):.1f}, slowest {max(kills):.0f} ms; cut off {clients.cut}, "
        f"failed otherwise {len(clients.failed)}",
        flush=True,
    )
    for error in clients.failed[:3]:
        print(f"  {error}")
    return (
        not clients.failed and clients.cut <= given.kills * given.clients and later <= given.bound
    )


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each phase")
    parser.add_argument(
        "--bound", type=float, default=100.0, help="ms more than in the steady state"
    )
    parser.add_argument("--only", nargs="+", choices=[*SERVERS], default=[*SERVERS])
    given = parser.parse_args()
    print(machine())
    held = all([one(name, given) for name in given.only])
    print("it holds" if held else "FAILED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
