"""What accept_designs.py and accept_cost.py compare: each something that listens and has
workers, as a Target of recluster.bench. Ended by `with`."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import BENCH, Late, Lines, end, free_port

from recluster.bench.identify import descendants
from recluster.bench.measure import Target, speaks_http
from recluster.bench.plan import QUICK
from recluster.bench.running import Running, Unavailable
from recluster.bench.servers import APPS, Server

DEADLINE = 30.0
PDEATHSIG = 1
NGINX = """
worker_processes {workers};
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port}{reuseport} backlog=1024;
        location / {{ return 200 "nginx\\n"; }}
    }}
}}
"""

ALONE = "alone"


@dataclass(frozen=True)
class Contestant:
    """`start(workers)` is a context manager that gives a Target."""

    name: str
    start: Callable[[int], contextlib.AbstractContextManager[Target]]
    missing: str | None = None  # a program that is not installed
    shared: str | None = None  # whose p99 it is compared to: the row of one shared queue
    held: bool = False  # whether the bounds of "The default" are for this row


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PDEATHSIG, int(signal.SIGKILL))


@contextlib.contextmanager
def _started(words: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A program that says on its first line where it listens and who its workers are."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no threads
        start_new_session=True,  # as a cluster has: a session is a unit of scheduling
    )
    assert process.stdout is not None
    try:
        try:
            said = Lines(process.stdout.fileno()).next(DEADLINE)
        except Late as error:
            raise Unavailable(str(error)) from None
        yield process, said
    finally:
        end(process, signal.SIGTERM)
        process.stdout.close()


def http_server(name: str, words: tuple[str, ...], keeps: bool = True) -> Server:
    return Server(name, words, "/?ms=1", "/?ms=200", tells=True, keeps=keeps)


def bare(program: str, design: str) -> Callable[[int], contextlib.AbstractContextManager[Target]]:
    """prefork.c in one of its designs."""

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Target]:
        with _started([program, "0", str(workers), design]) as (process, said):
            server = http_server(design, (), keeps=design != "blocking")
            pids = dict(enumerate(said["pids"]))
            yield Target(server, ("127.0.0.1", said["port"]), pids, process.pid)

    return start


@contextlib.contextmanager
def node_cluster(workers: int) -> Iterator[Target]:
    words = ["node", str(BENCH / "apps" / "node_cluster.js")]
    words += [str(workers), str(APPS / "node_server.js")]
    with _started(words) as (process, said):
        pids = dict(enumerate(said["pids"]))
        server = http_server("node cluster", ())
        yield Target(server, ("127.0.0.1", said["port"]), pids, process.pid)


def nginx(reuseport: bool) -> Callable[[int], contextlib.AbstractContextManager[Target]]:
    """It has nothing that blocks a worker, so no tail test."""

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Target]:
        with tempfile.TemporaryDirectory(prefix="recluster-bench-") as directory:
            port = free_port()
            text = NGINX.format(
                workers=workers, directory=directory, port=port,
                reuseport=" reuseport" if reuseport else "",
            )  # fmt: skip
            path = Path(directory, "nginx.conf")
            path.write_text(text)
            process = subprocess.Popen(
                ["nginx", "-p", directory, "-c", str(path), "-e", "stderr", "-g", "daemon off;"],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                preexec_fn=_die_with_parent, start_new_session=True,  # noqa: PLW1509
            )  # fmt: skip
            try:
                until = time.monotonic() + DEADLINE
                while len(pids := descendants(process.pid)) < workers:
                    if process.poll() is not None or time.monotonic() > until:
                        raise Unavailable("nginx did not start")
                    time.sleep(0.05)
                server = Server("nginx", (), "/", None)
                yield Target(server, ("127.0.0.1", port), dict(enumerate(pids)), process.pid)
            finally:
                end(process, signal.SIGTERM)

    return start


def clustered(
    server: Server, policy: str
) -> Callable[[int], contextlib.AbstractContextManager[Target]]:
    """recluster with that server under that policy; POLICY:HOW by --balance-by HOW, and
    POLICY:alone without handover, so that no worker has the library."""
    balance, _, how = policy.partition(":")
    said = ("--handover", "off") if how == ALONE else ("--balance-by", how) if how else ()
    words = (*said, *server.words)

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Target]:
        with Running(words, balance, workers) as running:
            running.wait_ready()
            yield Target(server, running.address, dict(running.pids), running.process.pid)

    return start


def shared_queue(
    server: Server,
) -> Callable[[int], contextlib.AbstractContextManager[Target]]:
    """A built-in Python server, each worker on one listening socket of their parent's."""
    words = list(server.words)
    if "--port" in words:  # uvicorn: its loop binds in C, so it is given the descriptor
        at = words.index("--port")
        words[at : at + 2] = ["--fd", "{fd}"]

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Target]:
        program = [sys.executable, str(BENCH / "apps" / "shared_queue.py"), str(workers)]
        with _started([*program, *words]) as (process, said):
            pids = dict(enumerate(said["pids"]))
            target = Target(server, ("127.0.0.1", said["port"]), pids, process.pid)
            if not answers(target):
                raise Unavailable("it does not answer")
            yield target

    return start


def answers(target: Target) -> bool:
    """It listens before its workers run: until one answers."""
    return speaks_http(target, QUICK)


def installed(contestant: Contestant) -> bool:
    return contestant.missing is None or shutil.which(contestant.missing) is not None


def lone(program: str, design: str) -> Server:
    """prefork.c as one worker of a cluster."""
    name = "C" if design == "epoll" else f"C {design}"
    return http_server(name, ("--", program, "0", "0", design), keeps=design != "blocking")
