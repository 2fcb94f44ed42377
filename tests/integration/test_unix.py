"""AF_UNIX listeners with real servers: shared, reloaded, respawned, closed."""

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from clients import GENEROUS, Load, read_answer, send_request
from harness import Pidfd, Running, edit, stop, until

WORKERS = 3


def get_unix(path):
    """One request on one connection to a path, or to a name with a leading zero byte."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GENEROUS)
        # A full queue says EAGAIN to one who does not wait, and makes others wait.
        connection.connect(path)
        send_request(connection)
        return read_answer(connection)


@dataclass(frozen=True)
class Server:
    needs: str
    args: tuple[str, ...]
    file: str
    bound: str = "PATH"
    stops: bool = True
    """It catches the stop signal, and serves what it has begun."""


def module(name, *args, app="asgi_app"):
    return Server(name, ("-m", name, *args), app + ".py")


SERVERS = {
    "asyncio": Server("sys", ("unix_asyncio.py", "PATH"), "unix_asyncio.py", stops=False),
    "socketserver": Server("sys", ("unix_socketserver.py", "PATH"), "unix_socketserver.py", stops=False),
    "uvicorn": module("uvicorn", "asgi_app:app", "--uds", "PATH", "--log-level", "error"),
    "hypercorn": module("hypercorn", "asgi_app:app", "--bind", "unix:PATH"),
    "gunicorn": module("gunicorn", "-b", "unix:PATH", "--log-level", "error", "wsgi_app:app", app="wsgi_app"),
    "node": Server("node", ("--", "node", "unix_node.js", "PATH"), "unix_node.js"),
}


@pytest.fixture(params=SERVERS)
def server(request):
    found = SERVERS[request.param]
    if not (shutil.which(found.needs) or importlib.util.find_spec(found.needs)):
        pytest.skip(f"{found.needs} is not installed")
    return found


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "app.socket")


def command(server, path):
    return [argument.replace("PATH", path) for argument in server.args]


def serving(path, count=60):
    return {get_unix(path)["worker"] for _ in range(count)}


def names(path):
    return sorted(os.listdir(os.path.dirname(path)))


def test_serves_reloads_and_survives(server, path, apps):
    options = ("--workers", WORKERS, "--respawn", 0.1, "--timeout", 20, "--drain-quiet", 0.2)
    with Running(*options, *command(server, path), cwd=apps) as running:
        old = {slot: event["pid"] for slot, event in running.wait_each("ready", WORKERS).items()}
        assert running.wait_for("listening")["address"] == f"unix:{path}"
        with Load(path, get_unix, clients=8) as load:
            load.more(50)
            assert {a.facts["worker"] for a in load.answers if a.facts} == {"0", "1", "2"}
            os.chmod(path, 0o651)
            edit(apps / server.file, 'VERSION = "1"', 'VERSION = "2"')
            outcome = running.reload(60)
            cutover = time.monotonic()
            assert outcome["ok"], outcome
            for slot, pid in old.items():
                running.wait_for("exit", 60, slot=slot, pid=pid)
            load.more(50)
            assert load.failures() == []
            assert {a.facts["version"] for a in load.since(cutover)} == {"2"}
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o651

            victim = running.wait_for("ready", slot=1, generation=2)["pid"]
            os.kill(victim, signal.SIGKILL)
            running.wait_for("exit", slot=1, pid=victim)
            dead = time.monotonic()
            assert running.wait_for("ready", slot=1, generation=2)["pid"] != victim
            ready = time.monotonic()
            load.more(50)
            load.stop()
            assert {a.facts["worker"] for a in load.since(ready) if a.facts} == {"0", "1", "2"}
            failures = load.failures()
            assert all(type(a.error).__name__ == "Broken" and a.began < dead for a in failures)
        assert running.end() == 0
        assert "Traceback" not in running.stderr()
    assert names(path) == ["apps"]
