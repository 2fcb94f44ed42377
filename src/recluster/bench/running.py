"""A cluster under one policy, started by the command line of recluster as a user would.

Knows its address (from the first `listening` event), who is in which slot, and ends it with
all its workers. What RECLUSTER_* variables say holds for it too, `--balance` and the number
of workers apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

START_WITHIN = 60.0
END_WITHIN = 10.0


class Unavailable(Exception):
    """The cluster did not start, or has ended; the text is its own last word."""


class Running:
    """Ended by `stop`, whatever happens (use `with`)."""

    def __init__(self, words: tuple[str, ...], balance: str, workers: int) -> None:
        self.workers = workers
        self.pids: dict[int, int] = {}  # slot -> pid of its newest worker
        self.address: tuple[str, int] = ("", 0)
        self._rest = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._directory = tempfile.TemporaryDirectory(prefix="recluster-bench-")
        self.control = os.path.join(self._directory.name, "control")
        self._events, writer = os.pipe()
        command = [sys.executable, "-m", "recluster", "--balance", balance]
        command += ["--workers", str(workers), "--events", str(writer)]
        command += ["--control", self.control, *words]
        try:
            # A group of its own: Ctrl-C is for the benchmark, which ends it in order.
            self.process = subprocess.Popen(
                command, pass_fds=[writer], stdin=subprocess.DEVNULL, stdout=self._log,
                stderr=self._log, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(writer)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def wait_ready(self) -> None:
        """Until each slot is ready. Raises Unavailable."""
        ready: set[int] = set()

        def all_ready(event: dict[str, Any]) -> bool:
            if event["event"] == "ready":
                ready.add(event["slot"])
            return len(ready) == self.workers and bool(self.address[1])

        self.wait_for(all_ready, START_WITHIN)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout: float) -> None:
        """Take events until one is wanted."""
        until = time.monotonic() + timeout
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                event = json.loads(line)
                self._note(event)
                if wanted(event):
                    return
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._events], [], [], left)[0]:
                raise Unavailable(f"not ready within {timeout:g} s: {self.last_word()}")
            data = os.read(self._events, 1 << 16)
            if not data:
                self.process.wait(END_WITHIN)
                raise Unavailable(self.last_word())
            self._rest += data

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "online":
            self.pids[event["slot"]] = event["pid"]
        elif event["event"] == "listening" and not self.address[1]:
            host, _, port = event["address"].rpartition(":")
            host = host.strip("[]")
            self.address = ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port))

    def last_word(self) -> str:
        """The last line it has written, which says why it ended."""
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), size, 0).decode(errors="replace").split("\n")
        words = [line.rpartition(" recluster: ")[2].strip() for line in lines]
        said = [line for line in words if line and not line.startswith("ended with")]
        return said[-1].removeprefix("recluster: ") if said else "it said nothing"

    def status(self) -> dict[str, Any]:
        """What `recluster.ctl status` knows; empty if it cannot be asked."""
        from ..control.asking import ask
        from ..control.masters import Failed

        with contextlib.suppress(Failed, OSError):
            found = ask({"cmd": "status"}, None, self.control, 5.0).get("status")
            if isinstance(found, dict):
                return found
        return {}

    def stop(self) -> None:
        """At once, with all workers; one that was stopped (SIGSTOP) dies as well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()  # its guard ends the workers
                self.process.wait(END_WITHIN)
        os.close(self._events)
        self._log.close()
        self._directory.cleanup()
