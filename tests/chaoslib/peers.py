"""The negative control: other tools, by their own reload, under the same clients and checker."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import free_port, until

from .checker import Deeds, wrong

ASGI = """
import asyncio, os
VERSION = 1
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    _, number, wait = scope["path"].split("/")
    await asyncio.sleep(int(wait) / 1000)
    body = b'{"id": %s, "version": %d}' % (number.encode(), VERSION)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
WSGI = """
import time
VERSION = 1
def app(environ, start):
    _, number, wait = environ["PATH_INFO"].split("/")
    time.sleep(int(wait) / 1000)
    body = b'{"id": %s, "version": %d}' % (number.encode(), VERSION)
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
PEERS = {
    "gunicorn": (WSGI, ["-m", "gunicorn", "-w", "3", "--threads", "4", "-b", "127.0.0.1:{}",
                        "--graceful-timeout", "2", "app:app"]),
    "uvicorn": (ASGI, ["-m", "uvicorn", "--workers", "3", "--port", "{}", "--log-level",
                       "error", "app:app"]),
}  # fmt: skip
RELOADS = 6


def caught(name, seed, load_of):
    """0 if the checker has found that requests were lost, or old code answered."""
    source, words = PEERS[name]
    directory = Path(tempfile.mkdtemp(prefix="recluster-chaos-"))
    app, port, deeds = directory / "app.py", free_port(), Deeds()
    app.write_text(source)
    command = [sys.executable, *(word.format(port) for word in words)]
    with open(directory / "log", "w") as log:
        peer = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: answers(port))
        load = load_of(port, directory, str(seed))
        for version in range(2, RELOADS + 2):
            fresh = directory / "new"
            # The last deploy is broken: with recluster the old code would serve on.
            text = "raise RuntimeError\n" if version == RELOADS + 1 else source
            fresh.write_text(text.replace("VERSION = 1", f"VERSION = {version}"))
            os.utime(fresh, (time.time() + 10 * version,) * 2)
            fresh.replace(app)
            peer.send_signal(signal.SIGHUP)
            time.sleep(2.0)
        found = wrong(load.end(), deeds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(peer.pid, signal.SIGKILL)
        peer.wait()
        shutil.rmtree(directory)
    print(f"{name}: {len(found)} wrong in {RELOADS} reloads", *found[:3], sep="\n  ")
    return 0 if found else 1


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
