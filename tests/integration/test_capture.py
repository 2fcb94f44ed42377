"""What a wire shows of a reload: no end of a connection before what it owes."""

import os
import signal
import socket

import pytest
from askers import Asking
from capture import Capture
from harness import Running, edit, until
from keptcase import CLIENTS, KEEPS, running, swap

RELOADS = 3


def may_capture():
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close()
    except PermissionError:
        return False
    return True


pytestmark = pytest.mark.skipif(not may_capture(), reason="CAP_NET_RAW is not ours")


def check(capture, asking):
    """When the clients have ended: all that they asked is seen, and none of them was ended."""
    assert asking.errors == [] and asking.answered
    until(lambda: capture.requests >= asking.answered)
    assert capture.wrong == []
    assert capture.lost() == 0


def test_servers_that_die_of_the_signal(kind, server):
    with running(server, workers=2) as cluster, Capture(cluster.port) as capture:
        with Asking(cluster.port, CLIENTS[kind]) as asking:
            asking.all_have("1")
            old = swap(cluster, server)
            asking.all_have("2")
        check(capture, asking)
        for pid in old.values():
            cluster.wait_for("exit", pid=pid)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn(loop, tmp_path):
    pytest.importorskip("uvicorn"), pytest.importorskip(loop)
    path = tmp_path / "app.py"
    path.write_text(
        "import json\n"
        "VERSION = 0\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n"
        "        return\n"
        "    body = json.dumps({'version': str(VERSION)}).encode()\n"
        "    fields = [(b'content-length', b'%d' % len(body))]\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': fields})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    words = ("-m", "uvicorn", "app:app", "--port", "0", "--loop", loop, "--lifespan", "off")
    with Running("--workers", 2, "--drain-settle", 0.2, *words, cwd=tmp_path) as cluster:
        cluster.wait_each("ready", 2)
        with Capture(cluster.port) as capture:
            with Asking(cluster.port, 8) as asking:
                for version in range(RELOADS):
                    asking.all_have(str(version))
                    old = cluster.pids()
                    edit(path, f"VERSION = {version}", f"VERSION = {version + 1}")
                    assert cluster.reload()["ok"]
                    for pid in old.values():
                        cluster.wait_for("exit", pid=pid)
                asking.all_have(str(RELOADS))
            check(capture, asking)


def test_the_capture_sees_an_end(tmp_path):
    """Of a server that is killed while it is asked: else the others prove nothing."""
    path = tmp_path / "server.py"
    path.write_text(KEEPS["asyncio"])
    with running(path) as cluster, Capture(cluster.port) as capture:
        with Asking(cluster.port, 4) as asking:
            asking.all_have("1")
            os.kill(cluster.pids()[0], signal.SIGKILL)
            cluster.wait_for("exit")
            until(lambda: len(asking.errors) == 4)
        until(lambda: capture.ends and capture.wrong)
