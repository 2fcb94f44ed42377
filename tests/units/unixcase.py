"""What the tests of AF_UNIX begin with: sockets, a path, workers that serve there."""

import contextlib
import os
import socket
import tempfile

import pytest

from .harness import ready


def unix():
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    return sock


@pytest.fixture
def sockets():
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(unix())


@pytest.fixture
def folder():
    """Older than any worker: what was made later, for its user alone, is private."""
    with tempfile.TemporaryDirectory(prefix="recluster-") as folder:
        yield folder


@pytest.fixture
def path(folder):
    return os.path.join(folder, "app.socket")


def worker_of(engine, number, generation=1, heir_of=0):
    worker = engine.worker(number, heir_of)
    engine.place(number, generation=generation)
    return worker


def serve(engine, sock, path, number, generation=1, heir_of=0):
    """A worker that listens there."""
    worker = worker_of(engine, number, generation, heir_of)
    engine.bind_unix(worker, sock, path)
    assert engine.listen(worker, sock)
    return sock


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def comes_to(path, sock):
    """Whether a new connection waits in that socket's queue."""
    with connect(path):
        if not ready(sock, ms=0):
            return False
        sock.accept()[0].close()
        return True


def refused(function, *arguments):
    with pytest.raises(OSError) as caught:
        function(*arguments)
    return caught.value.errno


def kill(engine, number):
    worker = engine.lib.rc_find(engine.struct, number)
    worker.dead = True
    engine.lib.rc_lanes_resteer(engine.struct)


def same(one, two):
    return os.fstat(one.fileno()).st_ino == os.fstat(two.fileno()).st_ino
