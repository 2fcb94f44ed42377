"""Servers that keep connections and die of the stop signal, and how they are swapped."""

import contextlib
import shutil

import pytest
from harness import Running, edit

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
