"""Requests that a reload costs behind a proxy: clients that POST, kept connections to the server.

    python bench/behind_proxy.py [--requests 20000] [--reloads 5] [--only uvicorn]
    python bench/behind_proxy.py --proxy haproxy      # or none: clients that keep theirs
    python bench/behind_proxy.py --handover off       # what the server's own end costs
    python bench/behind_proxy.py --namespaces         # clients, proxy and server in three (row.py)

A proxy may not repeat a POST, so each one on a connection that the server closes at that moment
is a 502. The server writes down each request's number: none may be missing, none there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from row import PROXY, SERVER, Row

WITHIN = 30.0
NGINX = """
daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    keepalive_requests 1000000;
    upstream server {{ server {back}:{port}; keepalive 32; keepalive_requests 1000000; }}
    server {{
        listen {host}:{front};
        location / {{
            proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    http-reuse always
    retries 0
    timeout connect 30s
    timeout client 30s
    timeout server 30s
listen front
    bind {host}:{front}
    server one {back}:{port} pool-max-conn 64
"""
PROXIES = {
    "nginx": ("nginx", "-c", "nginx.conf"), "haproxy": ("haproxy", "-db", "-f", "haproxy.conf")
}  # fmt: skip
ASGI = """
import os
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    while (await receive()).get("more_body"):
        pass
    os.write(seen, scope["query_string"] + b"\\n")
    length = (b"content-length", b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
AIOHTTP = """
import os, sys
from aiohttp import web
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
async def answer(request):
    await request.read()
    os.write(seen, request.query_string.encode() + b"\\n")
    return web.Response(text="ok")
app = web.Application()
app.router.add_post("/", answer)
web.run_app(app, host="HOST", port=int(sys.argv[1]), print=None)
"""
NODE = """
const fs = require('fs'), http = require('http');
const seen = fs.openSync(process.env.SEEN, 'a');
const server = http.createServer((request, response) => {
  request.resume();
  request.on('end', () => {
    fs.writeSync(seen, request.url.split('?')[1] + '\\n');
    response.setHeader('Content-Length', 2);
    response.end('ok');
  });
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), 'HOST');
if (process.env.CLOSES) process.on('SIGTERM', () => server.close(() => process.exit(0)));
"""
# Those that know nothing of the stop signal.
ASYNCIO = """
import asyncio, os, sys
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
async def answer(reader, writer):
    while line := await reader.readline():
        while (await reader.readline()).strip():
            pass
        if line.startswith(b"POST"):
            await reader.readexactly(5)
        os.write(seen, line.split()[1].partition(b"?")[2] + b"\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        await writer.drain()
async def main():
    server = await asyncio.start_server(answer, "HOST", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""
THREADS = """
import http.server, os, sys
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_POST(self):
        self.rfile.read(5)
        os.write(seen, self.path.partition("?")[2].encode() + b"\\n")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("HOST", int(sys.argv[1])), Handler).serve_forever()
"""
WSGI = """
import os
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def app(environ, start_response):
    environ["wsgi.input"].read()
    os.write(seen, environ["QUERY_STRING"].encode() + b"\\n")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
FILES = {
    "wsgi.py": WSGI, "asgi.py": ASGI, "aio.py": AIOHTTP, "server.js": NODE, "loop.py": ASYNCIO,
    "threads.py": THREADS
}  # fmt: skip
UVICORN = ("-m", "uvicorn", "asgi:app", "--host", "HOST", "--port", "PORT", "--log-level", "error")
SERVERS = {
    "uvicorn": (*UVICORN, "--loop", "asyncio"),
    "uvloop": (*UVICORN, "--loop", "uvloop"),
    "aiohttp": ("aio.py", "PORT"),
    # Its workers are exec'd: they have the library where it is in the environment.
    "hypercorn": ("--", sys.executable, "-m", "hypercorn", "asgi:app", "-b", "HOST:PORT"),
    "gthread": (
        "-m",
        "gunicorn",
        "-k",
        "gthread",
        "--threads",
        "64",
        "-b",
        "HOST:PORT",
        "--keep-alive",
        "60",
        "wsgi:app",
    ),
    "node": ("--", "node", "server.js", "PORT"),
    "asyncio": ("loop.py", "PORT"),
    "threads": ("threads.py", "PORT"),
    "node_closes": ("--env", "CLOSES=1", "--", "node", "server.js", "PORT"),
}
PEERS = {
    "gunicorn HUP": (sys.executable, "-m", "gunicorn", "-w", "2", "-k", "gthread", "--threads",
                     "64", "-b", "HOST:PORT", "--keep-alive", "60", "wsgi:app"),
    "uvicorn HUP": (sys.executable, *UVICORN, "--workers", "2", "--loop", "asyncio"),
    "granian HUP": (sys.executable, "-m", "granian", "--interface", "asgi", "--workers", "2",
                    "--host", "HOST", "--port", "PORT", "--no-ws", "asgi:app"),
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for(host: str, port: int, least: float) -> None:
    until = time.monotonic() + WITHIN
    while True:
        try:
            socket.create_connection((host, port), least).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise


class Clients:
    """Threads that POST one numbered request after the other on kept connections."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self.host, self.port, self.stopping = host, port, False
        self.sent = 0
        self.failed: Counter[str] = Counter()
        self.longest = 0.0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]
        for one in self._threads:
            one.start()

    def _run(self, client: int) -> None:
        connection = None
        number = 0
        while not self.stopping:
            number += 1
            if connection is None:
                connection = socket.create_connection((self.host, self.port), WITHIN)
                stream = connection.makefile("rb")
            began = time.monotonic()
            how, ends = "", False
            try:
                connection.sendall(
                    f"POST /?{client}.{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
                    "12345".encode()
                )
                status = stream.readline().split()
                length, ends = 0, False
                while line := stream.readline().strip().lower():
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                    ends |= line.replace(b" ", b"") == b"connection:close"
                stream.read(length)
                how = "" if status[1:2] == [b"200"] else repr(status[1:2])
            except OSError as error:
                how = type(error).__name__
            with self._lock:
                self.sent += 1
                self.longest = max(self.longest, time.monotonic() - began)
                if how:
                    self.failed[how] += 1
            if how or ends:
                connection.close()
                connection = None
            time.sleep(0.001 * (client % 6))
        if connection:
            connection.close()

    def stop(self) -> None:
        self.stopping = True
        for one in self._threads:
            one.join()


class Cluster:
    """Two workers under recluster."""

    def __init__(
        self, place: Path, at: list[str], words: list[str], options: tuple[str, ...]
    ) -> None:
        self._log = place / "log"
        events, inherited = os.pipe()
        self._process = subprocess.Popen(
            [*at, sys.executable, "-m", "recluster", "--events", str(inherited), "-w", "2",
             "--timeout", "60", *options, *words],
            cwd=place, env={**os.environ, "SEEN": str(place / "seen")}, pass_fds=[inherited],
            stderr=self._log.open("wb"),
        )  # fmt: skip
        os.close(inherited)
        self._events = os.fdopen(events)
        ready = 0
        while ready < 2:
            ready += '"event": "ready"' in self._next()

    def _next(self) -> str:
        line = self._events.readline()
        assert line, self._log.read_text()
        return line

    def reload(self) -> float:
        """How long after the cutover the last of the old workers was gone, in seconds."""
        self._process.send_signal(signal.SIGUSR2)
        gone, serves = 0, 0.0
        while gone < 2:
            line = self._next()
            gone += '"event": "exit"' in line
            if '"event": "reload"' in line:
                serves = time.monotonic()
        return time.monotonic() - serves

    def end(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._events.close()


class Peer:
    """Another tool, that reloads at SIGHUP: when its workers are others, it has."""

    def __init__(self, place: Path, at: list[str], words: list[str]) -> None:
        self._process = subprocess.Popen(
            [*at, *words], cwd=place, env={**os.environ, "SEEN": str(place / "seen")},
            stderr=(place / "log").open("wb"), stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def _workers(self) -> set[int]:
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        found = set()
        for child in path.read_text().split():
            with contextlib.suppress(OSError):  # multiprocessing has one that is no worker
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(int(child))
        return found

    def reload(self) -> float:
        before, until = self._workers(), time.monotonic() + 2 * WITHIN
        self._process.send_signal(signal.SIGHUP)
        while (now := self._workers()) & before or len(now) < len(before):
            assert time.monotonic() < until, "it has not reloaded"
            time.sleep(0.01)
        return math.nan  # when it serves new code is not told

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def measure(
    name: str,
    reloads: int,
    requests: int,
    clients: int = 32,
    options: tuple[str, ...] = (),
    proxy: str = "nginx",
    row: Row | None = None,
) -> dict[str, object]:
    """How many were sent, failed, were executed twice; the longest wait; and how long after its
    successor served the last worker with old code was gone."""
    with tempfile.TemporaryDirectory() as folder:
        place, port = Path(folder), free_port()
        front = free_port() if proxy in PROXIES else port
        back = SERVER if row else "127.0.0.1"
        host = (PROXY if proxy in PROXIES else SERVER) if row else back
        for file, text in FILES.items():
            (place / file).write_text(text.replace("HOST", back))
        for file, text in (("nginx.conf", NGINX), ("haproxy.conf", HAPROXY)):
            (place / file).write_text(
                text.format(place=place, port=port, front=front, host=host, back=back)
            )
        words = {**SERVERS, **PEERS}[name]
        words = [word.replace("PORT", str(port)).replace("HOST", back) for word in words]
        at = row.at_server if row else []
        tool = Peer(place, at, words) if name in PEERS else Cluster(place, at, words, options)
        between = None
        if proxy in PROXIES:
            program, *words = PROXIES[proxy]
            words[-1] = str(place / words[-1])
            between = subprocess.Popen(
                [*(row.at_proxy if row else []), shutil.which(program) or program, *words],
                stderr=subprocess.DEVNULL,
            )
        try:
            wait_for(back, port, WITHIN)
            wait_for(host, front, WITHIN)
            load = Clients(host, front, clients)
            leaves = 0.0
            try:
                for turn in range(reloads):
                    until = time.monotonic() + 2 * WITHIN
                    while load.sent < requests * (turn + 1) / (reloads + 1):
                        time.sleep(0.01)
                        assert time.monotonic() < until, load.sent
                    leaves = max(leaves, tool.reload())
                while load.sent < requests:
                    time.sleep(0.01)
            finally:
                load.stop()
        finally:
            if between:
                between.terminate()
                between.wait()
            tool.end()
        seen = Counter((place / "seen").read_text().split())
        return {
            "server": name,
            "proxy": proxy,
            "sent": load.sent,
            "failed": sum(load.failed.values()),
            "how": dict(load.failed),
            "twice": sum(count > 1 for count in seen.values()),
            "missing": load.sent - len(seen) - sum(load.failed.values()),
            "longest_ms": round(load.longest * 1000),
            "old_for_ms": None if name in PEERS else round(leaves * 1000),
        }


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--requests", type=int, default=20000)
    made.add_argument("--reloads", type=int, default=5)
    made.add_argument("--only", choices=[*SERVERS, *PEERS], action="append")
    made.add_argument("--handover", default="auto", choices=["auto", "off"])
    made.add_argument("--proxy", default="nginx", choices=[*PROXIES, "none"])
    made.add_argument("--clients", type=int, default=32)
    made.add_argument("--namespaces", action="store_true")
    given = made.parse_args()
    row = Row() if given.namespaces else None
    for name in given.only or [*SERVERS, *PEERS]:
        found = measure(
            name, given.reloads, given.requests, given.clients,
            ("--handover", given.handover), given.proxy, row,
        )  # fmt: skip
        print(found, flush=True)
    if row:
        row.end()


if __name__ == "__main__":
    main()
