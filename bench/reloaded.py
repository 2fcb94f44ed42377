"""The servers that reload_under_load.py reloads: recluster's and its peers', with one handle."""

from __future__ import annotations

import abc
import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    BENCH,
    EXAMPLES,
    Late,
    Master,
    end,
    free_port,
)

START_DEADLINE = 30.0
RELOAD_DEADLINE = 60.0
DRAIN_DEADLINE = 30.0
PROBES = 32
UVICORN = ("uvicorn", "uvicorn_app:app", "--loop", "uvloop", "--log-level", "error")


@dataclass(frozen=True)
class Server:
    """One row: how to start it. PORT and WORKERS are filled in."""

    name: str
    app: Path  # its VERSION is edited
    words: tuple[str, ...]
    needs: str | None = None  # a module, or a program
    peer: bool = False
    same: str = ""  # what serves: rows with the same one are compared


SERVERS = (
    Server("recluster http.server", EXAMPLES / "stdlib_server.py", ("stdlib_server.py", "PORT")),
    Server("recluster asyncio", EXAMPLES / "asyncio_server.py", ("asyncio_server.py", "PORT")),
    Server(
        "recluster uvicorn+uvloop", EXAMPLES / "uvicorn_app.py",
        ("-m", *UVICORN, "--port", "PORT"), "uvloop", same="uvicorn",
    ),
    Server(
        "recluster aiohttp", BENCH / "apps" / "aiohttp_server.py",
        ("aiohttp_server.py", "PORT"), "aiohttp",
    ),
    Server(
        "recluster node", EXAMPLES / "node_server.js", ("--", "node", "node_server.js", "PORT"),
        "node",
    ),
    Server(
        "gunicorn HUP", BENCH / "apps" / "wsgi_app.py",
        ("gunicorn", "-w", "WORKERS", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:PORT",
         "--log-level", "critical", "wsgi_app:app"),
        "gunicorn", peer=True, same="gunicorn",
    ),
    Server(
        "uvicorn HUP", EXAMPLES / "uvicorn_app.py",
        (*UVICORN, "--port", "PORT", "--workers", "WORKERS"),
        "uvicorn", peer=True, same="uvicorn",
    ),
    Server(
        "granian HUP", EXAMPLES / "uvicorn_app.py",
        ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT", "--workers",
         "WORKERS", "--respawn-interval", "1", "--no-log", "uvicorn_app:app"),
        "granian", peer=True, same="granian",
    ),
    Server(
        "hypercorn HUP", EXAMPLES / "uvicorn_app.py",
        ("hypercorn", "-w", "WORKERS", "-b", "127.0.0.1:PORT", "--log-level", "CRITICAL",
         "uvicorn_app:app"),
        "hypercorn", peer=True, same="hypercorn",
    ),
)  # fmt: skip


def installed(server: Server) -> bool:
    need = server.needs
    return need is None or bool(shutil.which(need)) or importlib.util.find_spec(need) is not None


# ---- the two kinds of servers, started -------------------------------------------------


class Running(abc.ABC):
    """A started server: reloads on request, in a directory of its own."""

    def __init__(self, server: Server, workers: int) -> None:
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="recluster-bench-")
        self._app = Path(self.directory, server.app.name)
        shutil.copy(server.app, self._app)
        filled = {"PORT": str(self.port), "WORKERS": str(workers)}
        self.words = [
            word.replace("PORT", filled["PORT"]) if "PORT" in word else filled.get(word, word)
            for word in server.words
        ]
        # Else an edit within a second of the last may meet its stale bytecode.
        self.environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.version = 1
        self.log = open(Path(self.directory, "log"), "w+")  # noqa: SIM115
        try:
            self.start(workers)
        except Late as error:
            said = self.last_words()
            self.stop()
            raise Late(f"did not start: {error}; its log ends:\n{said}") from None
        except BaseException:
            self.stop()
            raise

    def edit(self) -> None:
        """The next version of the application, in one step, as an editor does."""
        text, old = self._app.read_text(), self.version
        self.version += 1
        for quote in "\"'":
            line = f"VERSION = {quote}{old}{quote}"
            text = text.replace(line, line.replace(str(old), str(self.version)))
        fresh = self._app.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._app)

    @abc.abstractmethod
    def start(self, workers: int) -> None: ...

    @abc.abstractmethod
    def reload(self) -> None:
        """Returns when the new version serves. Raises Late."""

    def wait_drained(self) -> None:  # noqa: B027
        """Until the old workers are gone, if that can be known: not, unless said otherwise."""

    def stop(self) -> None:
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def last_words(self) -> str:
        self.log.flush()
        return Path(self.directory, "log").read_text(errors="replace")[-2000:]


class Recluster(Running):
    def start(self, workers: int) -> None:
        self._master = Master(
            self.words, workers=workers, env=self.environ, cwd=self.directory, log=self.log
        )
        self._generation = 1
        self._alive: dict[int, int] = {}  # pid -> generation
        for event in self._master.wait_ready(START_DEADLINE):
            self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self._alive[event["pid"]] = event["generation"]
        elif event["event"] == "exit":
            self._alive.pop(event["pid"], None)

    def reload(self) -> None:
        self._master.process.send_signal(signal.SIGUSR2)
        until = time.monotonic() + RELOAD_DEADLINE
        while True:
            event = self._master.events.next(until - time.monotonic())
            self._note(event)
            if event["event"] == "reload":
                break
        if not event["ok"]:
            raise Late(f"the reload failed: {event['why']}")
        self._generation = event["generation"]

    def wait_drained(self) -> None:
        until = time.monotonic() + DRAIN_DEADLINE
        while any(made < self._generation for made in self._alive.values()):
            self._note(self._master.events.next(until - time.monotonic()))

    def stop(self) -> None:
        if hasattr(self, "_master"):
            self._master.stop()
        super().stop()


class Peer(Running):
    def start(self, workers: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self.words], cwd=self.directory, env=self.environ,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        self._until_probed(START_DEADLINE)

    def _version(self) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return int(json.loads(connection.getresponse().read())["version"])
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _until_probed(self, patience: float) -> None:
        until, row = time.monotonic() + patience, 0
        while row < PROBES:
            row = row + 1 if self._version() == self.version else 0
            if time.monotonic() > until or self._process.poll() is not None:
                raise Late(f"version {self.version} did not serve within {patience:g} s")
            time.sleep(0.005)

    def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)
        self._until_probed(RELOAD_DEADLINE)

    def stop(self) -> None:
        if hasattr(self, "_process"):
            end(self._process, signal.SIGTERM)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own
        super().stop()
