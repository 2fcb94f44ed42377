"""The tool, a master that it asks, and its socket asked directly."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
from harness import ENVIRONMENT, GENEROUS, Running, replace

from recluster.control.places import likely_paths

FAST = ("--workers", 2, "--boots", 2, "--respawn", 0.1, "--timeout", 10, "--drain-settle", 0.1)
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")


def likely(pid):
    """Where that master's socket is."""
    return next(path for path in likely_paths(pid, ENVIRONMENT) if os.path.exists(path))


def command(*words):
    return [sys.executable, "-m", "recluster.ctl", *map(str, words)]


def ask(*words, env=ENVIRONMENT, **more):
    """Run the tool: (exit code, lines of standard output, of standard error)."""
    done = subprocess.run(
        command(*words),
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def tell(*words, **environ):
    """As `ask`, with that in its environment."""
    return ask(*words, env={**ENVIRONMENT, **environ})


def one_line_of_usage(*words, **more):
    code, out, err = ask(*words, **more)
    assert (code, out, len(err)) == (2, [], 1), err
    assert err[0].startswith("recluster.ctl: ")
    return err[0]


@contextlib.contextmanager
def asking(*words):
    """The tool, under way."""
    with subprocess.Popen(
        command(*words), env=ENVIRONMENT, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def ends(process):
    out, err = process.communicate(timeout=GENEROUS)
    assert "Traceback" not in err, err
    return process.returncode, out.splitlines(), err.splitlines()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ctl.sock")


@pytest.fixture
def running(apps, path):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))  # without a limit: with one, a full queue is an error
    connection.settimeout(GENEROUS)
    return connection


def raw(path, data):
    """What the master answers to these bytes."""
    with connect(path) as connection:
        connection.sendall(data)
        return json.loads(connection.makefile().readline())


def status_of(running, path):
    code, out, err = ask("--control", path, running.process.pid, "status", "--json")
    assert (len(out), err) == (1, [])
    status = json.loads(out[0])
    assert code == (0 if status["serving"] else 1)
    return status


@pytest.fixture
def hanging(running, apps):
    """Its next reload does not end by itself."""
    replace(apps / "http_server.py", apps / "never_listens.py")
    return running
