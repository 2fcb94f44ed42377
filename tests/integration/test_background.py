"""Servers that go to the background: a failed boot that says so, and nothing is left.

The strays are told from everybody's by a variable in their environment.
"""

import contextlib
import os
import shutil
import socket
import sys
import uuid
from pathlib import Path

import pytest
from harness import Running, bind_again, free_port, until
from nginxconf import temporary

WENT = "it went to the background: run it in the foreground"
OPTIONS = ("--workers", 2, "--give-up", 4, "--respawn", 0.1, "--backoff", 0.2)


class Marked:
    """Processes that have this in their environment."""

    def __init__(self):
        self.env = {"MARK_OF_THIS_TEST": uuid.uuid4().hex}

    def __call__(self):
        mark, found = self.env["MARK_OF_THIS_TEST"].encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found


@pytest.fixture
def marked():
    return Marked()


def nginx(directory, port):
    (directory / "nginx.conf").write_text(
        f"worker_processes 2; pid nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary()}server {{ listen 127.0.0.1:{port}; }} }}\n"
    )
    return ["--", shutil.which("nginx"), "-p", ".", "-c", "nginx.conf"]


def busybox(directory, port):
    return ["--", shutil.which("busybox"), "httpd", "-p", f"127.0.0.1:{port}", "-h", "."]


def gunicorn(directory, port):
    app = "wsgi_app:app"
    return ["--", sys.executable, "-m", "gunicorn", "--daemon", "-b", f"127.0.0.1:{port}", app]


def python(*words, command=False):
    def made(directory, port):
        script = ["goes_to_background.py", port, *words]
        return ["--", sys.executable, *script] if command else script

    return made


DAEMONS = {
    "nginx": nginx,
    "busybox": busybox,
    "gunicorn": gunicorn,
    "python": python(),
    "python, early": python("early"),
    "python, early and closes": python("early", "closes"),
    "a command": python(command=True),
    "a command, early and closes": python("early", "closes", command=True),
}


def needed(name):
    if name in ("nginx", "busybox") and not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    if name == "gunicorn":
        pytest.importorskip("gunicorn")


@pytest.mark.parametrize("name", DAEMONS)
def test_it_is_a_failed_boot_and_nothing_is_left(name, apps, marked):
    needed(name)
    port = free_port()
    with Running(*OPTIONS, *DAEMONS[name](apps, port), cwd=apps, env=marked.env) as running:
        assert running.wait() == 1
        assert any(WENT in line for line in running.log())
        assert any("giving up" in line for line in running.log())
        assert running.count("online") <= 8  # it did not start one after the other
        until(lambda: not marked(), 10)
        bind_again(port)


def test_of_a_cluster_that_is_stopped_nothing_is_left_either(apps, marked):
    needed("nginx")
    options = ("--workers", 3, "--give-up", 0, "--respawn", 0.1)
    with Running(*options, *nginx(apps, free_port()), cwd=apps, env=marked.env) as running:
        for _ in range(5):
            running.wait_for("exit", code=0)
        running.end()
        until(lambda: not marked(), 10)


def test_a_reload_to_it_is_a_verdict(apps, marked):
    (apps / "foreground").touch()
    args = ["goes_to_background.py", free_port(), "early"]
    with Running("--workers", 2, *args, cwd=apps, env=marked.env) as running:
        pids = {event["pid"] for event in running.wait_each("ready", 2).values()}
        (apps / "foreground").unlink()
        outcome = running.reload()
        assert not outcome["ok"]
        assert WENT in outcome["why"]
        until(lambda: set(running.states()) == pids)
        master = {running.process.pid}

        def only_the_old_ones():
            guard = master | pids
            return len(set(marked()) - guard) <= 1  # the guard has it, too

        until(only_the_old_ones)
        with socket.create_connection(("127.0.0.1", running.port), 10) as client:
            client.sendall(b"GET /foreground HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.0 404")


def test_who_served_and_leaves_a_helper_has_not_gone_to_the_background(apps, marked):
    """`setsid` of a helper is its own business, and so is what the helper does."""
    text = (apps / "http_server.py").read_text()
    (apps / "leaves_helper.py").write_text(
        "import subprocess\nsubprocess.Popen(['sleep', '100'], start_new_session=True)\n" + text
    )
    with Running("--workers", 1, "leaves_helper.py", 0, cwd=apps, env=marked.env) as running:
        running.wait_for("ready")
        assert running.reload()["ok"]
        running.end()
        assert not any(WENT in line for line in running.log())
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in until(marked)}
        helpers = [pid for pid, name in names.items() if name == "sleep"]
        assert len(helpers) == 2
        # And, while they live, who lets their calls pass.
        assert set(names.values()) <= {"sleep", "recluster-guard"}
        for pid in helpers:
            os.kill(pid, 9)
        until(lambda: not marked())
