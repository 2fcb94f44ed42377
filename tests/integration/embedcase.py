"""Small programs that embed a cluster: what a person would write first.

Each prints one JSON value; the test looks at that.
"""

import json
import subprocess
import sys
import textwrap

import pytest
from harness import ENVIRONMENT

BEGIN = """
import json, os, signal, sys
import recluster
from clients import answers, get

seen = []
def note(event):
    worker = event.worker and (event.worker.id, event.worker.generation)
    seen.append([event.name, worker, event.details])

def names():
    return [name for name, worker, details in seen]

def cluster_of(target="worker_messages.py", **options):
    options = {"workers": 2, "args": ["0"], "ready_when": "ready", "drain_settle": 0.1, **options}
    cluster = recluster.Cluster(target, **options)
    for name in ("online", "listening", "ready", "message", "disconnect", "exit", "reload"):
        cluster.on(name, note)
    return cluster

def drive_until(cluster, condition, seconds=30):
    import select, time
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        assert left > 0, (seen, "too late")
        select.select([cluster.fileno()], [], [], left)
        cluster.dispatch()

def port():
    return next(int(d["address"].split(":")[1]) for name, _, d in seen if name == "listening")
"""


@pytest.fixture
def program(apps, request):
    """Runs such a program; returns what it printed, and its standard error."""

    def run(text, code=0):
        path = str(request.path.parent)
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + textwrap.dedent(text)],
            cwd=apps,
            env={**ENVIRONMENT, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout or "null"), done.stderr

    return run
