"""The servers that preload.py compares, each started, reloaded, killed at and looked at."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import BENCH, free_port
from reload_under_load import MODES, Load, under_load

DEADLINE = 300.0
TICK = os.sysconf("SC_CLK_TCK")
OURS = "recluster --preload"  # how names of rows begin
STEADY = 2000  # requests
# What uvicorn imports, some of it only when it starts.
SERVER = (
    "uvicorn.main,uvicorn.loops.uvloop,uvicorn.lifespan.on,uvicorn.logging,"
    "uvicorn.protocols.http.httptools_impl,uvicorn.protocols.websockets.auto"
)
CLIENTS = {"connections": 16, "tick": 100, **MODES["close"]}


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


def memory_of(pid: int, children: bool = True) -> float:
    """MiB."""
    total = 0
    for one in tree(pid) if children else [pid]:
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", text, re.M)
        total += int(found[1]) if found else 0
    return total / 1024


# ---- applications and servers --------------------------------------------------------------


@dataclass(frozen=True)
class Application:
    module: str  # in apps/
    imports: str
    each: float  # what a worker may take of a reload's CPU time, seconds
    wsgi: str = ""  # the same for who knows no ASGI

    @property
    def listed(self) -> str:
        """For --preload LIST."""
        return f"{SERVER},{self.module},{self.imports}"

    def environ(self, directory: Path) -> dict[str, str]:
        return {
            **os.environ,
            "BENCH_LOG": str(directory / "log"),
            "BENCH_VERSION": str(directory / "version"),
            "BENCH_IMPORTS": self.imports,
            "HOME": str(directory),
            "RECLUSTER_RUN_DIRECTORY": str(directory),
        }


APPLICATIONS = {
    "numpy": Application("preload_asgi", "numpy,scipy.stats", 0.080, "preload_wsgi"),
    "fastapi": Application("preload_fastapi", "fastapi,sqlalchemy,pandas", 0.095),
    "django": Application("preload_django", "django", 0.110),
}


@dataclass(frozen=True)
class Server:
    name: str
    words: Callable[[Application, int, int], list[str]]  # the port, the number of workers
    trigger: signal.Signals = signal.SIGHUP
    needs: str = "uvicorn"
    wsgi: bool = False

    def runs(self, app: Application) -> bool:
        return importlib.util.find_spec(self.needs) is not None and bool(app.wsgi or not self.wsgi)


def recluster(preload: str) -> Server:
    def words(app: Application, port: int, count: int) -> list[str]:
        return [
            sys.executable, "-m", "recluster", "-w", str(count),
            "--preload", preload.replace("LIST", app.listed),
            "-m", "uvicorn", f"{app.module}:app", "--port", str(port), "--log-level", "error",
        ]  # fmt: skip

    name = "recluster" if preload == "none" else f"{OURS} {preload}"
    return Server(name, words, signal.SIGUSR2)


def gunicorn(*options: str) -> Server:
    def words(app: Application, port: int, count: int) -> list[str]:
        return [
            sys.executable, "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w",
            str(count), *options, "-b", f"127.0.0.1:{port}", "--log-level", "error",
            f"{app.module}:app",
        ]  # fmt: skip

    return Server(" ".join(["gunicorn", *options]), words, needs="uvicorn_worker")


def uvicorn(app: Application, port: int, count: int) -> list[str]:
    return [
        sys.executable, "-m", "uvicorn", f"{app.module}:app", "--port", str(port),
        "--workers", str(count), "--log-level", "error",
    ]  # fmt: skip


def granian(app: Application, port: int, count: int) -> list[str]:
    return [
        sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port),
        "--workers", str(count), "--log-level", "error", "--respawn-failed-workers",
        f"{app.module}:app",
    ]  # fmt: skip


def uwsgi(app: Application, port: int, count: int) -> list[str]:
    return [
        str(Path(sys.executable).with_name("uwsgi")), "--http-socket", f"127.0.0.1:{port}",
        "--master", "--need-app", "--lazy-apps", "--die-on-term", "--processes", str(count),
        "--disable-logging", "--wsgi", f"{app.wsgi}:app",
    ]  # fmt: skip


SERVERS = (
    recluster("auto"),
    recluster("auto,LIST"),
    recluster("LIST"),
    recluster("none"),
    gunicorn("--preload"),
    gunicorn(),
    Server("uvicorn --workers", uvicorn),
    Server("granian", granian, needs="granian"),
    Server("uWSGI --lazy-apps", uwsgi, needs="uwsgidecorators", wsgi=True),
)


class Run:
    def __init__(self, server: Server, app: Application, workers: int, directory: Path) -> None:
        self.workers = workers
        self.log, self._version = directory / "log", directory / "version"
        self._trigger = server.trigger
        self.log.write_text("")
        self._version.write_text("1")
        self.port = free_port()
        self.process = subprocess.Popen(
            server.words(app, self.port, workers),
            cwd=directory,
            env=app.environ(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def up(self) -> list[tuple[int, int]]:
        """Pid and version of each worker that has come up."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [(int(pid), int(version)) for pid, version in lines]

    def wait(self, done: Callable[[], bool]) -> float:
        began = time.monotonic()
        while not done():
            if self.process.poll() is not None or time.monotonic() > began + DEADLINE:
                raise RuntimeError("it has ended, or does not come up")
            time.sleep(0.005)
        return time.monotonic() - began

    def wait_up(self, count: int) -> float:
        return self.wait(lambda: len(self.up()) >= count)

    def reload(self, version: int) -> float:
        """Returns how long it took until all have come up, when the old ones are gone."""
        old = self.up()
        self._version.write_text(str(version))
        self.process.send_signal(self._trigger)
        took = self.wait_up(len(old) + self.workers)
        self.wait(lambda: not any(alive(pid) for pid, _ in old))
        return took

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
    memory: float
    stall: float | None  # ms, as the next
    steady: float | None  # p99.9
    respawn: float | None  # seconds; None: it has ended


def stalled(run: Run, program: str, turns: int) -> tuple[float, float]:
    """ms in which no client got an answer, at most, in a reload; and the p99.9 before it. The
    medians of some reloads."""
    stalls, steady = [], []
    for version in range(3, 3 + turns):

        def reload(load: Load, version: int = version) -> None:
            load.wait_for(STEADY // 5)
            run.reload(version)

        before = under_load(program, run.port, CLIENTS, lambda load: load.wait_for(STEADY))
        steady.append(before["latency_ms"]["p99.9"])
        stalls.append(under_load(program, run.port, CLIENTS, reload)["stall_ms"])
    return statistics.median(stalls), statistics.median(steady)


def measure(
    server: Server, app: Application, workers: int, requests: int, program: str, stalls: int
) -> Result:
    """`program`: load.c, built; `stalls`: reloads under its load. Raises Late and RuntimeError."""

    def load(count: int) -> None:
        under_load(program, run.port, CLIENTS, lambda load: load.wait_for(count * workers))

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for one in (BENCH / "apps").glob("preload_*.py"):
            shutil.copy(one, directory)
        run = Run(server, app, workers, directory)
        try:
            start = run.wait_up(workers)
            start_cpu = cpu_of(run.process.pid)
            load(requests // 10 + 1)
            before = cpu_of(run.process.pid)
            reload = run.reload(2)
            reload_cpu = cpu_of(run.process.pid) - before
            versions = {version for _, version in run.up()[workers:]}
            load(requests)
            memory = memory_of(run.process.pid)
            stall, steady = stalled(run, program, stalls) if stalls else (None, None)
            known = len(run.up())
            os.kill(run.up()[-1][0], signal.SIGKILL)
            try:
                respawn: float | None = run.wait_up(known + 1)
            except RuntimeError:  # granian takes it for a loop of crashes
                respawn = None
        finally:
            run.end()
    code = "new" if versions == {2} else "*old*" if versions == {1} else "*mixed*"
    return Result(
        server.name, start, start_cpu, reload, reload_cpu, code, memory, stall, steady, respawn
    )


def import_cpu(app: Application) -> float:
    """Of one process that imports it all, but for the interpreter's start."""

    def spent(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], cwd=BENCH / "apps", env=environ, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with tempfile.TemporaryDirectory() as name:
        environ = app.environ(Path(name))
        Path(environ["BENCH_VERSION"]).write_text("1")
        return min(spent(f"import uvicorn, uvicorn.main, {app.module}") for _ in range(3)) - min(
            spent("") for _ in range(3)
        )
