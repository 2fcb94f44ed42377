"""kill -9 of the master: a second later nothing of any slot lives, the port is free.

Grandchildren included; they are found in /proc before.
"""

import importlib.util
import signal

import pytest
from clients import get
from harness import Pidfd, Running, bind_again, descendants, free_port, survivors, until

UVICORN = "-m uvicorn asgi_app:app --workers 2 --port PORT"
GUNICORN = "-m gunicorn -w 2 -b 127.0.0.1:PORT wsgi_app:app"
HYPERCORN = "-m hypercorn asgi_app:app --workers 2 --bind 127.0.0.1:PORT"
GRANIAN = "-m granian --interface asgi --workers 2 --port PORT asgi_app:app"
SERVERS = {  # what it needs, how it is started, how many processes that makes, guard included
    "http_server": ("sys", "http_server.py PORT", 3),
    "forks_children": ("sys", "forks_children.py PORT", 5),
    "uvicorn": ("uvicorn", UVICORN, 7),
    "hypercorn": ("hypercorn", HYPERCORN, 7),
    "gunicorn": ("gunicorn", GUNICORN, 7),
    "granian": ("granian", GRANIAN, 7),
}


def kill_master(running, port, least):
    until(lambda: len(descendants(running.process.pid)) >= least)
    family = [Pidfd(pid) for pid in descendants(running.process.pid)]
    running.signal(signal.SIGKILL)
    try:
        assert survivors(family, 1.0) == []
        bind_again(port)
    finally:
        for pidfd in family:
            pidfd.signal(signal.SIGKILL)
            pidfd.close()


@pytest.mark.parametrize("name", SERVERS)
def test_nothing_is_left(name, apps):
    """Failure mode 23: no orphan, no grandchild, and the port can be bound."""
    needs, args, least = SERVERS[name]
    if not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is not installed")
    port = free_port()
    args = args.replace("PORT", str(port)).split()
    with Running("--workers", 2, *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert get(port)["version"] == "1"
        kill_master(running, port, least)


def test_nothing_is_left_in_the_middle_of_a_reload(apps):
    """Failure mode 23: neither of the old generation nor of the new."""
    port = free_port()
    with Running("--workers", 4, "http_server.py", port, cwd=apps) as running:
        running.wait_each("ready", 4)
        running.signal(signal.SIGUSR2)
        running.wait_for("online", generation=2)
        kill_master(running, port, 5)


def test_nothing_is_left_when_the_guard_was_killed_before(apps):
    """Failure mode 23: the guard is replaced; to kill one process undoes no promise."""
    port = free_port()
    with Running("--workers", 2, "http_server.py", port, cwd=apps) as running:
        running.wait_each("ready", 2)
        workers = set(running.pids().values())
        (guard,) = set(descendants(running.process.pid)) - workers
        first = Pidfd(guard)
        first.signal(signal.SIGKILL)
        assert first.is_dead(10)
        first.close()
        assert running.reload()["ok"]  # one turn of the loop later there is a new one
        kill_master(running, port, 3)
