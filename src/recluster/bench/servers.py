"""What is started: a built-in server, or the FILE, MODULE or COMMAND of the command line.

A built-in server answers `worker=SLOT pid=PID` on any path, after blocking its worker for
`ms` on a path with `?ms=N`. It blocks as a program does that computes or waits in a call:
an event loop stands still.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Server:
    """`words` are what recluster is given behind its options."""

    name: str
    words: tuple[str, ...]
    light: str | None  # paths; None: there are none to ask
    heavy: str | None
    tells: bool = False  # the answer says which worker gave it
    keeps: bool = True  # it can hold many connections in a worker at a time
    needs: str | None = None  # a module, or a program for words that begin with --

    def missing(self) -> bool:
        if self.needs is None:
            return False
        if self.words[0] == "--":
            return shutil.which(self.needs) is None
        return importlib.util.find_spec(self.needs) is None


def built_in(light_ms: int, heavy_ms: int) -> dict[str, Server]:
    """By name. They listen on port 0: all workers of a cluster get the same one."""
    light, heavy = f"/light?ms={light_ms}", f"/block?ms={heavy_ms}"

    def made(name: str, *words: str, keeps: bool = True, needs: str | None = None) -> Server:
        return Server(name, words, light, heavy, tells=True, keeps=keeps, needs=needs)

    http, app = str(APPS / "http_server.py"), str(APPS)
    uvicorn = ("--app-dir", app, "--loop", "uvloop", "--port", "0", "--log-level", "warning")
    servers = (
        made("http", http, "single", keeps=False),
        made("threading", http, "threading"),
        made("asyncio", str(APPS / "asyncio_server.py")),
        made("uvloop", "-m", "uvicorn", *uvicorn, "asgi_app:app", needs="uvloop"),
        made("node", "--", "node", str(APPS / "node_server.js"), needs="node"),
    )
    return {server.name: server for server in servers}


def chosen(words: list[str], light: str | None, heavy: str | None) -> Server:
    """The user's own. `/` is asked for where nothing is said; it need not even speak HTTP."""
    name = next((word for word in words if word not in ("-m", "--")), words[0])
    return Server(Path(name).name, tuple(words), light or "/", heavy)
