"""Streams that are held across a reload: nobody waits for them, nobody cuts them.

The numbers are those of the project's list of failure modes.
"""

import contextlib

import pytest
from clients import all_answer, connect
from harness import TERM, Running, edit, free_port, until

# A tick on its way counts as owed: with a second of that it is told to stop soon.
FAST = ("--workers", 3, "--respawn", 0, "--drain-settle", 0.2, "--drain-owes", 1)
UVICORN = ["-m", "uvicorn", "asgi_streams:app", "--log-level", "error", "--port"]
STREAMS = {  # what it needs, how it is started, the path, where VERSION is
    "aiohttp-sse": ("aiohttp", ["aiohttp_streams.py", "0"], "/sse", "aiohttp_server.py"),
    "aiohttp-websocket": ("aiohttp", ["aiohttp_streams.py", "0"], "/ws", "aiohttp_server.py"),
    "uvicorn-sse": ("uvicorn", UVICORN, "/sse", "asgi_app.py"),
    "threads-sse": ("sys", ["threads_streams.py", "0"], "/sse", "http_server.py"),
}


class Stream:
    """Ticks of an endless answer."""

    def __init__(self, port, path):
        self._connection = connect(port)
        request = f"GET {path} HTTP/1.1\r\nHost: test\r\n"
        if path == "/ws":  # RFC 6455, 1.2; the server's frames are not masked
            request += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            request += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        self._connection.sendall(f"{request}\r\n".encode())
        self.ticks(3)

    def ticks(self, count):
        """Wait for so many more."""
        seen, tail = 0, b""
        while seen < count:
            data = self._connection.recv(65536)
            assert data, "the stream was cut"
            seen += (tail + data).count(b"tick")
            tail = data[-3:]

    def ended(self):
        with contextlib.suppress(ConnectionError):
            while self._connection.recv(65536):
                pass
        return True

    def close(self):
        self._connection.close()


def command(name):
    needs, words, path, file = STREAMS[name]
    if needs != "sys":
        pytest.importorskip(needs)
    return [*words, str(free_port())] if words[-1] == "--port" else words, path, file


@pytest.mark.parametrize("name", STREAMS)
def test_a_held_stream_delays_nobody_and_lives_on(name, apps):
    """Failure mode 22: all slots are new at once; the streams go on behind SIGTERM."""
    words, path, file = command(name)
    with Running(*FAST, *words, cwd=apps) as running:
        running.wait_each("ready", 3)
        old = running.pids()
        streams = [Stream(running.port, path) for _ in range(12)]
        new = {("0", "2"), ("1", "2"), ("2", "2")}
        edit(apps / file, 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        all_answer(running.port, new, by=("worker", "version"))

        def told_to_stop():
            found = running.states()
            return all(found.get(pid, "stopping") == "stopping" for pid in old.values())

        until(told_to_stop)
        for stream in streams:
            stream.ticks(10)  # half a second
        assert set(old.values()) & set(running.states())
        all_answer(running.port, new, by=("worker", "version"))
        for stream in streams:
            stream.close()
        exits = [running.wait_for("exit", pid=pid) for pid in old.values()]
        assert "SIGKILL" not in [end["signal"] for end in exits]
        assert running.end() == 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_held_stream_ends_at_the_timeout(name, apps):
    """Failure mode 22: and not later, at a reload and at the end."""
    words, path, _ = command(name)
    with Running(*FAST, "--timeout", 2, *words, cwd=apps) as running:
        running.wait_each("ready", 3)
        old = running.pids()
        streams = [Stream(running.port, path) for _ in range(12)]
        assert running.reload()["ok"]
        exits = [running.wait_for("exit", pid=pid) for pid in old.values()]
        assert all(stream.ended() for stream in streams)
        assert "SIGKILL" in [end["signal"] for end in exits]
        last = Stream(running.port, path)
        assert running.end(TERM) == 0
        assert last.ended()


def test_a_server_that_ignores_the_signal_keeps_its_stream(apps):
    """Failure mode 22: SIGTERM would kill it: it is not told while its stream moves."""
    edit(apps / "threads_streams.py", "signal.signal(signal.SIGTERM, stop)", "")
    options = (*FAST, "--drain-quiet", 0.5)
    with Running(*options, "threads_streams.py", "0", cwd=apps) as running:
        running.wait_each("ready", 3)
        old = set(running.pids().values())
        stream = Stream(running.port, "/sse")
        assert running.reload()["ok"]
        for _ in range(2):
            running.wait_for("exit", where=lambda event: event["pid"] in old)
        stream.ticks(40)  # four times as long as would be quiet
        stream.close()
        last = [running.wait_for("exit", pid=pid) for pid in old & set(running.states())]
        assert [end["signal"] for end in last] == ["SIGTERM"]
        assert running.end() == 0
