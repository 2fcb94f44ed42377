"""Kept connections of servers that die of the stop signal: busy ones move too, all or none."""

import contextlib
import resource
import shutil

import deny
import pytest
from askers import Asking
from clients import KeepAlive, connect
from harness import Running, edit, links, until

FAST = ("--drain-settle", 0.2, "--timeout", 600)

KEEPS = {
    # In one thread of a loop: what clients ask is held still.
    "asyncio": """
import asyncio, json, os, sys
VERSION = "1"
BODY = json.dumps({"version": VERSION, "pid": os.getpid()})
async def answer(reader, writer):
    while path := (await reader.readline()).split():
        while (await reader.readline()).strip():
            pass
        if path[1] == b"/stream":
            writer.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        if path[1] == b"/slow":
            await asyncio.sleep(3)
        writer.write(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(BODY)}\\r\\n\\r\\n{BODY}".encode())
        await writer.drain()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
""",
    # Threads that stand in read(2): that the process is stopped is all that can be done.
    "threads": """
import http.server, json, os, sys, time
VERSION = "1"
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    def do_GET(self):
        body = json.dumps({"version": VERSION, "pid": os.getpid()}).encode()
        if self.path == "/slow":
            time.sleep(3)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/stream":
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.01)
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
""",
    # It catches the signal, and dies of it.
    "node": """
const http = require('http')
const VERSION = "1"
const body = JSON.stringify({version: VERSION, pid: process.pid})
http.createServer((request, response) => {
  if (request.url === '/stream') return setInterval(() => response.write('x'), 10)
  if (request.url === '/slow') return setTimeout(() => response.end(body), 3000)
  response.setHeader('Content-Length', body.length)
  response.end(body)
}).listen(Number(process.argv[2]), '127.0.0.1')
""",
}
# How many at once: with threads all must have been answered at one moment.
CLIENTS = {"asyncio": 8, "threads": 3, "node": 8}


@pytest.fixture(params=list(KEEPS))
def kind(request):
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("node is not installed")
    return request.param


@pytest.fixture
def server(kind, tmp_path):
    path = tmp_path / ("server.js" if kind == "node" else "server.py")
    path.write_text(KEEPS[kind])
    return path


@contextlib.contextmanager
def running(path, *options, workers=1, **more):
    words = ("--", "node", path.name, "0") if path.suffix == ".js" else (path.name, "0")
    with Running("--workers", workers, *FAST, *options, *words, cwd=path.parent, **more) as cluster:
        cluster.wait_each("ready", workers)
        yield cluster


def swap(cluster, path):
    old = cluster.pids()
    edit(path, 'VERSION = "1"', 'VERSION = "2"')
    assert cluster.reload()["ok"]
    return old


def asked(client, path):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


def has_been_tried(cluster, pid):
    """The master has held its connections, and has let them go."""

    def held():
        mine, theirs = set(links(cluster.process.pid)), set(links(pid))
        return len([one for one in mine & theirs if one.startswith("socket:")])

    before = held()
    until(lambda: held() > before)
    until(lambda: held() == before)


def in_a_container():
    """Where we may not take what a worker has, its library gives it."""
    deny.install(["pidfd_getfd"])


@pytest.mark.parametrize("where", [None, in_a_container])
def test_busy_connections_move(where, kind, server):
    """They went on with old code until `timeout`."""
    with running(server, workers=2, preexec_fn=where) as cluster:
        with Asking(cluster.port, CLIENTS[kind]) as asking:
            asking.all_have("1")
            for pid in swap(cluster, server).values():
                exit = cluster.wait_for("exit", pid=pid)
                assert exit["signal"] == "SIGTERM", exit
            asking.all_have("2")
        assert not asking.errors
        assert cluster.end() == 0


def test_a_stream_keeps_all_of_them(server):
    """Its end cannot be seen, so the worker stays, and its other connections with it."""
    with running(server) as cluster, KeepAlive(cluster.port) as other:
        with connect(cluster.port) as stream:
            asked(stream, "/stream")
            assert stream.recv(1000)
            assert other.ask()["version"] == "1"
            old = swap(cluster, server)[0]
            has_been_tried(cluster, old)
            assert other.ask() == {"version": "1", "pid": old}
            assert stream.recv(1000)
            assert cluster.count("exit") == 0
        # Without it nothing stands in the way any more.
        until(lambda: other.ask()["version"] == "2")
        cluster.wait_for("exit", pid=old)
        assert cluster.end() == 0


def test_a_slow_answer_is_waited_for(server):
    """It is longer than connections are held."""
    with running(server) as cluster, KeepAlive(cluster.port) as client:
        with connect(cluster.port) as slow:
            asked(slow, "/slow")
            until(lambda: client.ask()["version"] == "1")
            old = swap(cluster, server)[0]
            assert b" 200 " in slow.recv(1000)
            until(lambda: client.ask()["version"] == "2")
        cluster.wait_for("exit", pid=old)
        assert cluster.end() == 0


def test_who_wants_no_end_before_the_timeout_gets_none(server):
    with running(server, "--drain-quiet", "timeout") as cluster:
        with Asking(cluster.port, 1) as asking:
            asking.all_have("1")
            old = swap(cluster, server)[0]
            until(lambda: cluster.states()[old] == "draining")
            seen = asking.answered
            until(lambda: asking.errors or asking.answered > seen + 2000)
            assert asking.versions == {0: "1"}
        assert not asking.errors
        assert cluster.count("exit") == 0


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def test_what_is_held_leaves_the_master_descriptors(tmp_path):
    """All or none: 200 connections are more than three quarters of 256. Else these, on which
    nothing was asked yet, would move at once."""
    path = tmp_path / "server.py"
    path.write_text(KEEPS["asyncio"])
    with running(path, preexec_fn=few_descriptors) as cluster, contextlib.ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(connect(cluster.port))
        with Asking(cluster.port, 1) as asking:
            asking.all_have("1")
            old = swap(cluster, path)[0]
            until(lambda: cluster.states()[old] == "draining")
            seen = asking.answered
            until(lambda: asking.errors or asking.answered > seen + 2000)
            assert asking.versions == {0: "1"}
        assert not asking.errors
        assert cluster.count("exit") == 0
