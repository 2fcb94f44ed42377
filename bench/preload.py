"""One import for N workers, beside those who import N times, or serve old code:
python bench/preload.py [--workers 16] [--imports numpy,scipy.stats] [--requests 200]

Of each server, one after another: from its start until all N workers have come up (lifespan),
the same from the trigger of a reload with new code, CPU time of both (the old workers' end
included), how long it takes until a killed worker has a successor, and the memory (PSS) of
all its processes after that many requests for each worker. Wall-clock times want a machine
that has nothing else to do; CPU times and memory do not. `--write` puts the table into
docs/measured.md.

Needs uvicorn, gunicorn, uvicorn-worker and granian (those that are there take part), and what
is to be imported. Exit code 1 if a reload of recluster --preload takes more CPU than 1.1 imports
and 80 ms for each worker.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent
DEADLINE = 300.0
TICK = os.sysconf("SC_CLK_TCK")
MARK = "<!-- bench/preload.py -->"
DOC = BENCH.parent / "docs" / "measured.md"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# ---- processes, as /proc has them --------------------------------------------------------


def tree(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in map(int, children):
                found += tree(child)
    except OSError:
        pass
    return found


def cpu_of(pid: int) -> float:
    """Of the whole tree, those that have been waited for included."""
    ticks = 0
    for one in tree(pid):
        try:
            words = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, words[11:15]))
    return ticks / TICK


def memory_of(pid: int) -> float:
    """MiB."""
    total = 0
    for one in tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", text, re.M)
        total += int(found[1]) if found else 0
    return total / 1024


# ---- servers -----------------------------------------------------------------------------


@dataclass
class Server:
    name: str
    words: Callable[[int, int], list[str]]  # of the port and the number of workers
    trigger: signal.Signals
    needs: str = "uvicorn"
    ours: bool = False


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def recluster(*options: str) -> Callable[[int, int], list[str]]:
    return lambda port, count: python(
        "-m", "recluster", "-w", str(count), *options,
        "-m", "uvicorn", "preload_asgi:app", "--port", str(port), "--log-level", "error",
    )  # fmt: skip


def gunicorn(*options: str) -> Callable[[int, int], list[str]]:
    return lambda port, count: python(
        "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", str(count), *options,
        "-b", f"127.0.0.1:{port}", "--log-level", "error", "preload_asgi:app",
    )  # fmt: skip


def servers(imports: str) -> list[Server]:
    listed = f"uvicorn,preload_asgi,{imports}"
    return [
        Server("recluster --preload auto", recluster("--preload", "auto"), signal.SIGUSR2,
               ours=True),
        Server("recluster --preload auto,LIST", recluster("--preload", f"auto,{listed}"),
               signal.SIGUSR2, ours=True),
        Server("recluster --preload LIST", recluster("--preload", listed), signal.SIGUSR2,
               ours=True),
        Server("recluster", recluster("--preload", "none"), signal.SIGUSR2),
        Server("gunicorn --preload", gunicorn("--preload"), signal.SIGHUP, "uvicorn_worker"),
        Server("gunicorn", gunicorn(), signal.SIGHUP, "uvicorn_worker"),
        Server(
            "uvicorn --workers",
            lambda port, count: python(
                "-m", "uvicorn", "preload_asgi:app", "--port", str(port),
                "--workers", str(count), "--log-level", "error",
            ),
            signal.SIGHUP,
        ),
        Server(
            "granian",
            lambda port, count: python(
                "-m", "granian", "--interface", "asgi", "--port", str(port), "--workers",
                str(count), "--log-level", "error", "--respawn-failed-workers", "preload_asgi:app",
            ),
            signal.SIGHUP,
            "granian",
        ),
        Server(
            "uWSGI --lazy-apps",
            lambda port, count: [
                str(Path(sys.executable).with_name("uwsgi")), "--http-socket",
                f"127.0.0.1:{port}", "--master", "--need-app", "--lazy-apps", "--die-on-term",
                "--processes", str(count), "--disable-logging", "--wsgi", "preload_wsgi:app",
            ],
            signal.SIGHUP,
            "uwsgidecorators",
        ),
    ]  # fmt: skip


class Run:
    def __init__(self, server: Server, workers: int, imports: str, directory: Path) -> None:
        self.workers = workers
        self.log, self.version = directory / "log", directory / "version"
        self.log.write_text("")
        self.version.write_text("old")
        self.port = free_port()
        self.process = subprocess.Popen(
            server.words(self.port, workers),
            cwd=directory,
            env={
                **os.environ,
                "BENCH_LOG": str(self.log),
                "BENCH_VERSION": str(self.version),
                "BENCH_IMPORTS": imports,
                "HOME": str(directory),
                "RECLUSTER_RUN_DIRECTORY": str(directory),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def up(self) -> list[tuple[int, str]]:
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [(int(pid), version) for pid, version in lines]

    def wait(self, done: Callable[[], bool]) -> float:
        began = time.monotonic()
        while not done():
            if self.process.poll() is not None or time.monotonic() > began + DEADLINE:
                raise RuntimeError("it has ended, or does not come up")
            time.sleep(0.005)
        return time.monotonic() - began

    def wait_up(self, count: int) -> float:
        return self.wait(lambda: len(self.up()) >= count)

    def load(self, requests: int) -> None:
        def ask() -> None:
            for _ in range(requests * self.workers // 8):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                try:
                    connection.request("GET", "/", headers={"Connection": "close"})
                    connection.getresponse().read()
                except OSError:
                    pass
                connection.close()

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    def end(self) -> None:
        everybody = tree(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in everybody[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@dataclass
class Result:
    name: str
    start: float
    start_cpu: float
    reload: float
    reload_cpu: float
    code: str
    respawn: float | None  # seconds; None: it has ended
    memory: float


def measure(server: Server, workers: int, imports: str, requests: int) -> Result:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for app in ("preload_asgi.py", "preload_wsgi.py"):
            shutil.copy(BENCH / "apps" / app, directory)
        run = Run(server, workers, imports, directory)
        try:
            start = run.wait_up(workers)
            start_cpu = cpu_of(run.process.pid)
            run.load(requests // 10 + 1)
            old = [pid for pid, _ in run.up()]
            run.version.write_text("new")
            before = cpu_of(run.process.pid)
            run.process.send_signal(server.trigger)
            reload = run.wait_up(2 * workers)
            run.wait(lambda: not any(map(alive, old)))
            reload_cpu = cpu_of(run.process.pid) - before
            versions = {version for _, version in run.up()[workers:]}
            run.load(requests)
            memory = memory_of(run.process.pid)
            known = len(run.up())
            os.kill(run.up()[-1][0], signal.SIGKILL)
            try:
                respawn: float | None = run.wait_up(known + 1)
            except RuntimeError:  # granian takes it for a loop of crashes
                respawn = None
        finally:
            run.end()
    code = "new" if versions == {"new"} else "*old*" if versions == {"old"} else "*mixed*"
    return Result(server.name, start, start_cpu, reload, reload_cpu, code, respawn, memory)


def import_cpu(imports: str) -> float:
    """Of one process that imports it all, but for the interpreter's start."""

    def spent(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(spent(f"import uvicorn, uvicorn.main, {imports}") for _ in range(3)) - min(
        spent("") for _ in range(3)
    )


def table(results: list[Result], one: float, options: argparse.Namespace) -> str:
    lines = [
        f"{options.workers} workers, `{options.imports}` on uvicorn; one import is {one:.2f} s of "
        f"CPU; one-minute load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, Python "
        f"{sys.version.split()[0]}; PSS after {options.requests} requests for each worker.",
        "",
        "| server | start, s / CPU s | reload, s / CPU s | code | killed worker is back, ms "
        "| PSS, MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        lines.append(
            f"| {r.name} | {r.start:.1f} / {r.start_cpu:.1f} | {r.reload:.1f} / {r.reload_cpu:.1f} "
            f"| {r.code} | {'it ends' if r.respawn is None else f'{r.respawn * 1000:.0f}'} "
            f"| {r.memory:.0f} |"
        )
    return "\n".join(lines)


def write(text: str) -> None:
    before, _, rest = DOC.read_text().partition(MARK)
    _, _, after = rest.partition(MARK)
    DOC.write_text(f"{before}{MARK}\n{text}\n{MARK}{after}")


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    made.add_argument("--workers", type=int, default=16)
    made.add_argument("--imports", default="numpy,scipy.stats")
    made.add_argument("--requests", type=int, default=200)
    made.add_argument("--only", default="", help="names of servers, with ; between them")
    made.add_argument("--write", action="store_true")
    options = made.parse_args()
    one = import_cpu(options.imports)
    results, late = [], False
    wanted = options.only.split(";") if options.only else None
    for server in servers(options.imports):
        if importlib.util.find_spec(server.needs) is None or (wanted and server.name not in wanted):
            continue
        try:
            result = measure(server, options.workers, options.imports, options.requests)
        except RuntimeError as error:
            print(f"{server.name}: {error}", file=sys.stderr)
            continue
        print(result, file=sys.stderr, flush=True)
        results.append(result)
        late = late or (server.ours and result.reload_cpu > 1.1 * one + 0.08 * options.workers)
    text = table(results, one, options)
    print(text)
    if options.write:
        write(text)
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
