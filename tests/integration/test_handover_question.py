"""A worker is asked what it has accepted (csrc/handover/question.c), and does not answer: its one
thread is at work for longer than anybody waits, or it dies meanwhile."""

import contextlib
import os
import signal

import deny
import pytest
from clients import KeepAlive, connect
from harness import Running, kept, until

FAST = ("--workers", 1, "--drain-settle", 0.2, "--timeout", 600)
SERVER = """
import asyncio, json, os, signal, sys
BODY = json.dumps({"generation": os.environ["RECLUSTER_GENERATION"]})
busy = set()
async def answer(reader, writer):
    while path := (await reader.readline()).split():
        busy.add(writer)
        while (await reader.readline()).strip():
            pass
        if path[1] == b"/hold":
            open("fifo").read()
        if path[1] in (b"/slow", b"/last"):
            await asyncio.sleep(3)
        writer.write(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(BODY)}\\r\\n\\r\\n{BODY}".encode())
        await writer.drain()
        busy.discard(writer)
        if path[1] == b"/last":
            break
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    if "CATCHES" not in os.environ:
        await server.serve_forever()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    server.close()
    while os.path.exists("fifo"):  # it goes on for as long as the test wants it to
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


@pytest.fixture
def ends(request):
    return getattr(request, "param", {})


@pytest.fixture
def cluster(tmp_path, ends):
    (tmp_path / "server.py").write_text(SERVER)
    os.mkfifo(tmp_path / "fifo")
    words = (*FAST, "server.py", "0")
    with Running(*words, cwd=tmp_path, preexec_fn=in_a_container, env=ends) as running:
        running.wait_for("ready")
        yield running


def in_a_container():
    deny.install(["pidfd_getfd"])


def say(client, path):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


@contextlib.contextmanager
def held_up(cluster, fifo):
    """Its thread reads a FIFO until the end of this, and then answers who has asked for that, if
    it lives."""

    def read():
        with contextlib.suppress(OSError):  # ENXIO: not yet
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)

    with connect(cluster.port) as client:
        say(client, "/hold")
        writer = until(read)
        try:
            yield
        finally:
            os.close(writer)
        assert (client.recv(1000) or b'"1"}').endswith(b'"1"}')


def ask_in_vain(cluster, old):
    """A reload, until the master has given up waiting: what the new worker answers here takes it
    three times as long."""
    assert cluster.reload()["ok"]
    until(lambda: cluster.states()[old] == "draining")
    with connect(cluster.port) as slow:
        say(slow, "/slow")
        assert slow.recv(1000).endswith(b'"2"}')


def test_who_was_asked_in_vain_is_asked_again(cluster, tmp_path):
    before = len(kept(cluster.process.pid))
    with KeepAlive(cluster.port) as client:
        assert client.ask()["generation"] == "1"
        old = cluster.pids()[0]
        with held_up(cluster, tmp_path / "fifo"):
            ask_in_vain(cluster, old)
            assert cluster.states()[old] == "draining"
        until(lambda: client.ask()["generation"] == "2")
        cluster.wait_for("exit", pid=old)
    until(lambda: len(kept(cluster.process.pid)) == before)
    assert cluster.end() == 0


@pytest.mark.parametrize("ends", [{"CATCHES": "1"}], indirect=True)
def test_what_comes_too_late_is_not_kept(cluster, tmp_path):
    """The master had what a worker sent later until that worker's end, and so its clients did not
    see that it had closed them."""
    with connect(cluster.port) as last, KeepAlive(cluster.port) as client:
        say(last, "/last")
        assert client.ask()["generation"] == "1"
        old = cluster.pids()[0]
        with held_up(cluster, tmp_path / "fifo"):
            ask_in_vain(cluster, old)
        stream = last.makefile("rb")
        assert stream.read().endswith(b'"1"}')
        assert cluster.count("exit") == 0
        os.unlink(tmp_path / "fifo")
        cluster.wait_for("exit", pid=old)
    assert cluster.end() == 0


def test_who_dies_instead_of_answering(cluster, tmp_path):
    before = len(kept(cluster.process.pid))
    with KeepAlive(cluster.port) as client:
        assert client.ask()["generation"] == "1"
        old = cluster.pids()[0]
        with held_up(cluster, tmp_path / "fifo"):
            assert cluster.reload()["ok"]
            until(lambda: cluster.states()[old] == "draining")
            os.kill(old, signal.SIGKILL)
            assert cluster.wait_for("exit", pid=old)["signal"] == "SIGKILL"
    with KeepAlive(cluster.port) as client:
        assert client.ask()["generation"] == "2"
    until(lambda: len(kept(cluster.process.pid)) == before)
    assert cluster.end() == 0
