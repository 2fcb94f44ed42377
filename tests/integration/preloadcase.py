"""What the tests of --preload have in common: a program that notes its imports."""

import contextlib
from pathlib import Path

import deny
import pytest
from clients import get
from harness import Running, descendants, until

FAST = ("--respawn", 0.1, "--drain-settle", 0.2)

# Says by whom, and how often, it is imported.
CODE = """
import os
VERSION = "1"
with open("imports", "a") as file:
    print(VERSION, os.getpid(), dict(os.environ).get("WORKER_ID", "none"), file=file)
"""

SERVER = """
import json, os, sys, threading
import code_of_it
from http_server import Handler, http

class Facts(Handler):
    def do_GET(self):
        body = json.dumps({
            "version": code_of_it.VERSION, "pid": os.getpid(), "parent": os.getppid(),
            "group": os.getpgid(0), "slot": os.environ["WORKER_ID"],
            "generation": os.environ["RECLUSTER_GENERATION"], "argv": sys.argv,
            "main": sys.modules["__main__"].__file__, "threads": threading.active_count(),
        }).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Facts).serve_forever()
"""


@pytest.fixture
def where(apps):
    (apps / "code_of_it.py").write_text(CODE)
    (apps / "server.py").write_text(SERVER)
    return apps


def in_a_container():
    """Where a usual profile denies what the seccomp door needs."""
    deny.install(["pidfd_getfd"])


def running(where, *more, workers=3, preload="code_of_it", **how):
    options = ("--workers", workers, *FAST, "--preload", preload, *more)
    return Running(*options, "server.py", "0", cwd=where, **how)


def imports(where):
    """[version, pid, WORKER_ID] of each."""
    return [line.split() for line in (where / "imports").read_text().splitlines()]


def molds(cluster):
    """Of the processes of the master those that are no workers, nor the guard."""
    cluster.count("online")
    known = {event["pid"] for event in cluster.seen if event["event"] == "online"}
    found = []
    for pid in descendants(cluster.process.pid):
        words, parent = [], 0
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if (
            parent == cluster.process.pid
            and pid not in known
            and any(word.endswith(b"mold/run.py") for word in words)
        ):
            found.append(pid)
    return found


def answers_of(cluster, slots):
    """One answer of each slot."""
    found = {}

    def asked():
        facts = get(cluster.port)
        found[int(facts["slot"])] = facts
        return len(found) == slots

    until(asked)
    return [found[slot] for slot in sorted(found)]
