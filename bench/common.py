"""What all benches share: the machine line, medians, free ports, the master's events."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import platform
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent
EXAMPLES = BENCH.parent / "examples"


def machine() -> str:
    """One line: on what the figures were measured."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"machine: Linux {platform.release()} {platform.machine()}, {_cpu()}, "
        f"{len(os.sched_getaffinity(0))} CPUs, {platform.python_implementation()} "
        f"{platform.python_version()}, load average {load}"
    )


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown CPU"


def spread(values: Iterable[float], digits: int = 2) -> str:
    """min / median / max: the median, and how noisy it is."""
    ordered = sorted(values)
    if not ordered:
        return "-"
    three = ordered[0], statistics.median(ordered), ordered[-1]
    return " / ".join(f"{value:.{digits}f}" for value in three)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compiled(source: str) -> str:
    """The path of a bench program in C, built anew into a directory that goes
    when the bench ends. Ends the bench with one line if there is no compiler."""
    directory = tempfile.mkdtemp(prefix="recluster-bench-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    program = os.path.join(directory, Path(source).stem)
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", program, str(BENCH / source)]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"cannot compile {source}: {error}")
    return program


class Late(Exception):
    """A deadline passed, or whom we waited for has ended."""


class Lines:
    """JSON lines of a pipe, read with deadlines."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = b""
        self._lines: list[bytes] = []

    def next(self, timeout: float) -> dict[str, Any]:
        """Raises Late after `timeout` seconds, or at the end of the pipe."""
        until = time.monotonic() + timeout
        while not self._lines:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise Late(f"nothing was said within {timeout:.1f} s")
            data = os.read(self.fd, 1 << 16)
            if not data:
                raise Late("it has ended")
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        said: dict[str, Any] = json.loads(self._lines.pop(0))
        return said

    def until(self, wanted: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """The next line that is wanted."""
        end = time.monotonic() + timeout
        while True:
            said = self.next(max(0.0, end - time.monotonic()))
            if wanted(said):
                return said

    def close(self) -> None:
        os.close(self.fd)


class Master:
    """A cluster started by its command line."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        workers: int,
        options: Sequence[str] = (),
        env: dict[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        log: Any = None,
    ) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "recluster", "--workers", str(workers)]
        command += ["--events", str(writer), *options, *words]
        self.workers = workers
        self.process = subprocess.Popen(
            command, pass_fds=[writer], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip
        os.close(writer)
        self.events = Lines(reader)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self, timeout: float) -> list[dict[str, Any]]:
        """Until each slot has said that it is ready; those events."""
        ready: dict[int, dict[str, Any]] = {}
        while len(ready) < self.workers:
            event = self.events.until(lambda said: said["event"] == "ready", timeout)
            ready[event["slot"]] = event
        return list(ready.values())

    def stop(self, timeout: float = 10.0) -> None:
        """At once, with all workers."""
        end(self.process, signal.SIGQUIT, timeout)
        self.events.close()


def end(process: subprocess.Popen[Any], number: int, timeout: float = 10.0) -> None:
    """Send the signal, wait, kill."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)


def arguments(description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
