"""The main job, with every server: run it, edit it, reload it, kill one of it.

16 clients keep opening connections all the time, one request on each.
"""

import importlib.util
import shutil
import signal
import time
from dataclasses import dataclass
from typing import Any

import pytest
from clients import GENEROUS, Load, all_answer, ask_grpc, get
from harness import Pidfd, Running, descendants, edit, free_port

WORKERS = 4


@dataclass(frozen=True)
class Server:
    needs: str
    """The module or command without which it cannot be tested."""
    args: tuple[str, ...]
    file: str
    """Where VERSION is edited."""
    port: int | None = 0
    """None: it cannot take port 0."""
    accepted: int = 16
    """How many connections a worker may hold when it is killed."""
    ask: Any = get
    inner: bool = False
    """The process that answers is not the slot's leader."""


def script(name, needs="sys", **more):
    return Server(needs, (name, "PORT"), name, **more)


def module(name, *args, app="asgi_app", **more):
    return Server(name, ("-m", name, *args), app + ".py", **more)


HYPERCORN = ("asgi_app:app", "--bind", "127.0.0.1:PORT")
UVICORN = ("asgi_app:app", "--port", "PORT", "--log-level", "error")
GRANIAN = ("--interface", "asgi", "--port", "PORT", "--log-level", "error", "asgi_app:app")
GUNICORN = ("-b", "127.0.0.1:PORT", "--log-level", "error", "wsgi_app:app")

SERVERS = {
    "http_server": script("http_server.py", accepted=1),
    "socketserver_threading": script("socketserver_threading.py"),
    "socketserver_forking": script("socketserver_forking.py"),
    "asyncio": script("asyncio_server.py"),
    "wsgiref": script("wsgiref_server.py", accepted=1),
    "aiohttp": script("aiohttp_server.py", "aiohttp"),
    "tornado": script("tornado_server.py", "tornado"),
    "grpcio": script("grpc_server.py", "grpc", port=None, ask=ask_grpc),
    "uvicorn": module("uvicorn", "--loop", "asyncio", *UVICORN),
    "uvicorn_uvloop": module("uvicorn", "--loop", "uvloop", *UVICORN),
    "uvicorn_workers": module("uvicorn", "--workers", "2", *UVICORN, inner=True),
    "hypercorn": module("hypercorn", *HYPERCORN, inner=True),
    "granian": module("granian", *GRANIAN, port=None, inner=True),
    "granian_workers": module("granian", "--workers", "2", *GRANIAN, port=None, inner=True),
    "gunicorn": module("gunicorn", *GUNICORN, app="wsgi_app", inner=True),
    "gunicorn_workers": module("gunicorn", "-w", "2", *GUNICORN, app="wsgi_app", inner=True),
    "node": Server("node", ("--", "node", "node_server.js", "PORT"), "node_server.js"),
}


@pytest.fixture(params=SERVERS)
def server(request):
    found = SERVERS[request.param]
    if not (shutil.which(found.needs) or importlib.util.find_spec(found.needs)):
        pytest.skip(f"{found.needs} is not installed")
    return found


def command(server):
    port = str(free_port() if server.port is None else server.port)
    return [argument.replace("PORT", port) for argument in server.args]


def every_worker_answers(running, server):
    all_answer(running.port, {"0", "1", "2", "3"}, server.ask, by=("worker",))


def test_serves_reloads_and_survives(server, apps):
    options = ("--workers", WORKERS, "--respawn", 0.1, "--timeout", 20)
    with Running(*options, *command(server), cwd=apps) as running:
        old = {slot: event["pid"] for slot, event in running.wait_each("ready", WORKERS).items()}
        every_worker_answers(running, server)

        with Load(running.port, server.ask) as load:
            load.more(50)
            reload_swaps_the_code(running, server, load, apps, old)
            kill_loses_only_what_was_accepted(running, server, load)
        every_worker_answers(running, server)
        assert running.end() == 0


def reload_swaps_the_code(running, server, load, apps, old):
    edit(apps / server.file, 'VERSION = "1"', 'VERSION = "2"')
    outcome = running.reload(60)
    cutover = time.monotonic()
    assert (outcome["ok"], outcome["generation"]) == (True, 2), outcome
    load.more(50)
    for slot, pid in old.items():
        running.wait_for("exit", 60, slot=slot, pid=pid)
    load.more(50)
    assert load.failures() == []
    assert {answer.facts["version"] for answer in load.answers} == {"1", "2"}
    assert {answer.facts["version"] for answer in load.since(cutover)} == {"2"}


def kill_loses_only_what_was_accepted(running, server, load):
    victim = running.wait_for("ready", slot=2, generation=2)["pid"]
    family = [Pidfd(pid) for pid in [victim, *descendants(victim)]]
    family[0].signal(signal.SIGKILL)
    assert all(pidfd.is_dead(GENEROUS) for pidfd in family)
    dead = time.monotonic()

    successor = running.wait_for("ready", slot=2, generation=2)["pid"]
    assert successor != victim
    ready = time.monotonic()
    # One that listens before its own workers boot (gunicorn) is congested until then.
    load.until(lambda fresh: served_by(fresh, "2"))
    load.more(50)
    load.stop()
    served = served_by(load.since(ready), "2")
    inner = {pidfd.pid for pidfd in family}
    assert not served & inner
    assert server.inner or served == {successor}
    failures = load.failures()
    # What waited in a lane is not lost: no connection refused, none reset later.
    assert all(answer.began < dead for answer in failures), failures
    assert all(type(answer.error).__name__ in LOST for answer in failures), failures
    assert len(failures) <= server.accepted, failures
    for pidfd in family:
        pidfd.close()


def served_by(answers, worker):
    """The processes of this worker that have answered."""
    good = (answer.facts for answer in answers if not answer.error)
    return {facts["pid"] for facts in good if facts["worker"] == worker}


LOST = ("Broken", "_InactiveRpcError")


def test_http_server_as_a_module(apps):
    """`-m http.server` serves files; it has no code of ours that could be edited."""
    (apps / "index.html").write_text('{"version": "of the file"}')
    args = ("--workers", 2, "-m", "http.server", "0", "--bind", "127.0.0.1")
    with Running(*args, cwd=apps) as running:
        first = running.wait_each("ready", 2)
        with Load(running.port, clients=4) as load:
            load.more(20)
            assert running.reload()["ok"]
            for event in first.values():
                running.wait_for("exit", pid=event["pid"])
            load.more(20)
        assert load.failures() == []
        assert running.end() == 0
