"""Who is told to stop, when, and what is not cut by it (R8, R9, R10)."""

import contextlib
import json
import os
import shutil
import signal
import sys

import pytest
from clients import connect, get, read_answer, send_request
from harness import Running, edit, until
from procnet import ESTABLISHED, sockets

FAST = ("--respawn", 0, "--drain-settle", 0.2)
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
NODE = ("--", "node", "node_long.js", "0", "gate")


def reload_and_wait_for_the_idle(cluster, busy):
    """Those without connections have been stopped: so the others might have been, too."""
    old = set(cluster.pids().values())
    assert cluster.reload()["ok"]
    for pid in old - busy:
        cluster.wait_for("exit", pid=pid)
    assert busy <= set(cluster.states())


# ---- R8: a disconnect that is heard -----------------------------------------------------


@needs_node
def test_a_node_worker_acts_upon_the_disconnect_before_any_signal(apps):
    with Running("--workers", 3, *FAST, *NODE, "disconnect", cwd=apps) as cluster:
        cluster.wait_each("ready", 3)
        old = cluster.pids()
        assert cluster.reload()["ok"]
        exits = [cluster.wait_for("exit", pid=pid) for pid in old.values()]
        assert [(event["code"], event["signal"]) for event in exits] == [(0, None)] * 3
        assert cluster.end() == 0


def test_a_job_worker_that_hears_may_finish_its_job(apps):
    """It never listened, so nothing that the kernel knows says when it is done."""
    os.mkfifo(apps / "gate")
    options = ("--workers", 1, *FAST, "--ready-when", "started", "--drain-quiet", 0.2)
    with Running(*options, "job_worker.py", "gate", cwd=apps) as cluster:
        old = cluster.wait_for("ready")["pid"]
        cluster.wait_for("message", message={"job": "begun"})
        assert cluster.reload()["ok"]
        end = until(lambda: reached(apps / "gate"))
        assert old in cluster.states()
        os.close(end)
        assert cluster.wait_for("message", pid=old)["message"] == {"job": "done"}
        assert cluster.wait_for("exit", pid=old)["code"] == 0
        assert cluster.end(signal.SIGQUIT) == 0


def reached(gate):
    with contextlib.suppress(OSError):
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)


# ---- R9: who would be cut by the signal ---------------------------------------------------


@needs_node
@pytest.mark.parametrize("what", ["answer", "upload", "stream"])
def test_plain_node_is_not_cut(what, apps):
    os.mkfifo(apps / "gate")
    options = ("--workers", 3, *FAST, "--drain-owes", 0.2, "--drain-quiet", 2)
    with Running(*options, *NODE, cwd=apps) as cluster:
        cluster.wait_each("ready", 3)
        with connect(cluster.port) as client:
            if what == "upload":
                client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345")
            else:
                send_request(client, "/hold" if what == "answer" else "/sse")
            (busy,) = until(lambda: {pid for pid, count in connections(cluster).items() if count})
            if what == "stream":
                ticks(client, 3)
            reload_and_wait_for_the_idle(cluster, {busy})
            if what == "upload":
                client.sendall(b"67890")
                assert read_answer(client)["bytes"] == 10
            elif what == "answer":
                os.close(until(lambda: reached(apps / "gate")))
                assert read_answer(client)["pid"] == busy
            else:
                ticks(client, 60)  # three seconds of it
        assert cluster.wait_for("exit", pid=busy)
        assert cluster.end() == 0


def connections(cluster):
    """pid -> how many it has open."""
    pids = cluster.pids().values()
    return {pid: len(sockets(pid, cluster.port, ESTABLISHED)) for pid in pids}


def ticks(client, count):
    seen, tail = 0, b""
    while seen < count:
        data = client.recv(65536)
        assert data, "the stream was cut"
        seen += (tail + data).count(b"tick")
        tail = data[-3:]


def test_a_server_that_was_seen_to_die_of_the_signal_is_not_cut_again(apps):
    edit(apps / "threads_streams.py", "signal.signal(signal.SIGTERM, stop)",
         "signal.signal(signal.SIGTERM, lambda *unused: sys.exit(0))")  # fmt: skip
    edit(apps / "threads_streams.py", "daemon_threads = False", "daemon_threads = True")
    with Running(
        "--workers", 2, *FAST, "--drain-owes", 0.2, "threads_streams.py", "0", cwd=apps
    ) as cluster:
        cluster.wait_each("ready", 2)
        cut = 0
        for _ in range(8):
            old = set(cluster.pids().values())
            with connect(cluster.port) as client:
                send_request(client, "/sse")
                ticks(client, 3)
                (busy,) = {pid for pid, count in connections(cluster).items() if count}
                try:
                    if not cut:  # its handler looks as if it would finish
                        assert cluster.reload()["ok"]
                        assert cluster.wait_for("exit", pid=busy)["code"] == 0
                        cut += 1
                    else:
                        reload_and_wait_for_the_idle(cluster, {busy})
                        ticks(client, 60)
                        break
                except AssertionError:
                    cut += 1  # on a busy machine it took longer to die than is known as dying
            left = old & set(cluster.states())
            for pid in left:
                cluster.wait_for("exit", pid=pid)
        assert 0 < cut < 8
        assert cluster.end() == 0


@pytest.mark.parametrize("quiet", ["timeout", None])
def test_drain_quiet_holds_for_who_catches_the_signal_when_it_is_given(quiet, apps):
    pytest.importorskip("aiohttp")
    options = ("--workers", 2, *FAST, "--drain-owes", 0.2, "--shutdown-timeout", 2)
    options += ("--drain-quiet", quiet) if quiet else ()
    with Running(*options, "aiohttp_streams.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        with connect(cluster.port) as client:
            send_request(client, "/sse")
            ticks(client, 3)
            (busy,) = {pid for pid, count in connections(cluster).items() if count}
            reload_and_wait_for_the_idle(cluster, {busy})
            if quiet:
                assert cluster.states()[busy] == "draining"
            else:
                until(lambda: cluster.states().get(busy) in ("stopping", None))
        cluster.wait_for("exit", pid=busy)
        assert cluster.end() == 0


# ---- R10: who stands between ----------------------------------------------------------------


def test_a_shell_between_does_not_keep_the_signal_from_the_server(apps):
    (apps / "start.sh").write_text(
        'trap "" INT\n"$PYTHON" threads_streams.py 0\necho "$?" > code\n'
    )
    options = ("--workers", 1, *FAST, "--env", f"PYTHON={sys.executable}")
    with Running(*options, "--", "sh", "start.sh", cwd=apps) as cluster:
        leader = cluster.wait_for("ready")["pid"]
        with connect(cluster.port) as client:
            send_request(client, "/sse")
            ticks(client, 3)
            cluster.signal(signal.SIGTERM)
            ticks(client, 3)
        assert cluster.wait_for("exit", pid=leader)["code"] == 0
        assert cluster.wait() == 0
    assert (apps / "code").read_text() == "0\n"  # the server ended as it does when it is told


UNIX_SERVER = """
import asyncio, signal, sys
async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with await asyncio.start_unix_server(lambda reader, writer: writer.close(), "s.sock"):
        await told.wait()
asyncio.run(main())
sys.exit(7)
"""


def test_nor_from_one_that_listens_on_a_path_only(apps):
    (apps / "server.py").write_text(UNIX_SERVER)
    (apps / "start.sh").write_text('"$PYTHON" server.py s.sock\necho "$?" > code.$WORKER_ID\n')
    options = ("--workers", 2, *FAST, "--env", f"PYTHON={sys.executable}")
    with Running(*options, "--", "sh", "start.sh", "s.sock", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        old = cluster.pids()
        assert cluster.reload()["ok"]
        for pid in old.values():
            assert cluster.wait_for("exit", pid=pid)["code"] == 0
        told = [(apps / f"code.{slot}").read_text() for slot in old]
        assert told == ["7\n", "7\n"]  # each ended as it does when it is told
        assert cluster.end() == 0


@needs_node
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_npm_start(apps):
    (apps / "package.json").write_text(json.dumps(
        {"name": "t", "version": "1.0.0", "scripts": {"start": "node graceful.js"}}))  # fmt: skip
    (apps / "graceful.js").write_text(
        "const http = require('http'), fs = require('fs')\n"
        "const server = http.createServer((q, a) => a.end(JSON.stringify({pid: process.pid})))\n"
        "server.listen(0, '127.0.0.1')\n"
        "process.on('SIGTERM', () => { fs.writeFileSync('told.' + process.pid, 'x'); "
        "server.close(() => process.exit(0)); server.closeIdleConnections() })\n"
    )
    home = ("--env", f"HOME={apps}", "--env", "npm_config_update_notifier=false")
    with Running("--workers", 2, *FAST, *home, "--", "npm", "start", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        servers = {get(cluster.port)["pid"] for _ in range(40)}
        assert len(servers) == 2
        leaders = set(cluster.pids().values())
        assert not servers & leaders
        assert cluster.reload()["ok"]
        for pid in leaders:
            cluster.wait_for("exit", pid=pid)
        assert all((apps / f"told.{pid}").exists() for pid in servers)
        assert cluster.end() == 0
