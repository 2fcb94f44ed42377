"""Kept connections go on when their worker leaves: what it closes, another answers."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import deny
import pytest
from askers import Asking
from clients import Broken, Stale, connect
from harness import GENEROUS, Running, edit, until

BENCH = Path(__file__).parents[2] / "bench" / "behind_proxy.py"
FAST = ("--drain-settle", 0.2, "--drain-owes", 1)
UVICORN = ("-m", "uvicorn", "asgi_app:app", "--port", "0", "--log-level", "error")


@pytest.fixture
def behind_proxy(monkeypatch):
    monkeypatch.syspath_prepend(BENCH.parent)
    spec = importlib.util.spec_from_file_location("behind_proxy", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
@pytest.mark.parametrize("server", ["uvicorn", "uvloop", "aiohttp"])
def test_behind_nginx_nothing_fails(server, behind_proxy):
    """Where every reload cost tens of requests, which a proxy cannot repeat."""
    pytest.importorskip({"uvloop": "uvicorn"}.get(server, server))
    found = behind_proxy.measure(server, 2, 3000, clients=16, options=tuple(map(str, FAST)))
    assert (found["failed"], found["twice"], found["missing"]) == (0, 0, 0), found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("proxy", ["haproxy", "nginx", "none"])
def test_between_network_namespaces_nothing_fails(proxy):
    """Clients, proxy and server on three machines, as far as the network is concerned."""
    pytest.importorskip("uvicorn")
    for tool in ({proxy} - {"none"}) | {"ip", "nsenter"}:
        if not shutil.which(tool):
            pytest.skip(f"no {tool}")
    words = [sys.executable, BENCH, "--namespaces", "--proxy", proxy, "--only", "uvicorn"]
    words += ["--requests", "2000", "--reloads", "2", "--clients", "8"]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=GENEROUS)
    found = ast.literal_eval(said.stdout)
    assert (found["failed"], found["twice"], found["missing"]) == (0, 0, 0), found


def in_a_container():
    """Where we may not take what a worker has, its library gives it."""
    deny.install(["pidfd_getfd"])


@pytest.mark.parametrize("where", [None, in_a_container])
def test_busy_connections_move_alive(where, apps):
    """None of them is closed, though their worker has ended."""
    pytest.importorskip("uvicorn")
    with Running("--workers", 2, *FAST, *UVICORN, cwd=apps, preexec_fn=where) as running:
        running.wait_each("ready", 2)
        old = running.pids()
        with Asking(running.port, 8) as asking:
            asking.all_have("1")
            edit(apps / "asgi_app.py", 'VERSION = "1"', 'VERSION = "2"')
            assert running.reload()["ok"]
            for slot in old:
                running.wait_for("exit", pid=old[slot])
            asking.all_have("2")
        # Its last answer may have said that the connection ends with it.
        assert all(isinstance(error, Stale) for error in asking.errors)
        assert running.end() == 0


OTHER = """
import asyncio, signal, sys
async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(b"you said " + line)
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
asyncio.run(main())
"""


def test_other_protocols_end_as_ever(apps):
    """Of what is not HTTP/1 the end is not withheld."""
    (apps / "other.py").write_text(OTHER)
    with Running("--workers", 1, *FAST, "other.py", "0", cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        with connect(running.port) as client:
            for _ in range(20):
                client.sendall(b"hello\n")
                assert client.recv(100) == b"you said hello\n"
            assert running.reload()["ok"]
            running.wait_for("exit", pid=old)
            client.settimeout(10)
            assert client.recv(100) == b""
        assert running.end() == 0


ENDS = """
import asyncio, os, signal, sys
async def main():
    loop, stopped, open_ = asyncio.get_running_loop(), asyncio.Event(), []
    async def answer(reader, writer):
        await reader.readline()
        open_.append(writer)
        await stopped.wait()
        writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nall of it")
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await asyncio.sleep(0.2)
asyncio.run(main())
"""


def test_a_body_that_the_end_closes_has_its_end(apps):
    (apps / "ends.py").write_text(ENDS)
    with Running("--workers", 1, *FAST, "ends.py", "0", cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        with connect(running.port) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert running.reload()["ok"]
            running.wait_for("exit", pid=old)
            client.settimeout(10)
            data = b""
            while piece := client.recv(100):
                data += piece
            assert data.endswith(b"all of it")
        assert running.end() == 0


def test_a_client_that_leaves_is_let_go(apps):
    """The master keeps nothing of it."""
    pytest.importorskip("uvicorn")
    with Running("--workers", 1, *FAST, *UVICORN, cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        with Asking(running.port, 4) as asking:
            asking.all_have("1")
            assert running.reload()["ok"]
            running.wait_for("exit", pid=old)

        def kept():
            wanted = f":{running.port:04X}"
            names = {
                line.split()[9]
                for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                if line.split()[1].endswith(wanted) and line.split()[3] != "0A"
            }
            folder = Path(f"/proc/{running.process.pid}/fd")
            links = [link.readlink().name for link in folder.iterdir() if link.is_symlink()]
            return [one for one in links if one.startswith("socket:[") and one[8:-1] in names]

        until(lambda: not kept())
        assert running.end() == 0


STREAMS = """
import asyncio, signal, sys
async def answer(reader, writer):
    await reader.readline()
    writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n2\\r\\nhi\\r\\n")
    await reader.read()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
asyncio.run(main())
"""


def test_a_stream_that_is_cut_has_its_end(apps):
    """It looks like an answer on a connection that is kept: not for long."""
    (apps / "streams.py").write_text(STREAMS)
    with Running("--workers", 1, *FAST, "streams.py", "0", cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        with connect(running.port) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            data = b""
            while not data.endswith(b"hi\r\n"):
                data += client.recv(100)
            assert running.reload()["ok"]
            running.wait_for("exit", pid=old)
            client.settimeout(10)
            assert client.recv(100) == b""
        assert running.end() == 0


def test_a_request_that_is_under_way_is_answered_by_who_has_read_it(apps):
    """The stop signal waits for it, a second at most."""
    pytest.importorskip("uvicorn")
    text = (apps / "asgi_app.py").read_text()
    slow = text.replace(
        "    facts = {", "    await __import__('asyncio').sleep(0.4)\n    facts = {"
    )
    (apps / "asgi_app.py").write_text(slow)
    with Running("--workers", 1, *FAST, *UVICORN, cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        with Asking(running.port, 4) as asking:
            asking.all_have("1")
            edit(apps / "asgi_app.py", 'VERSION = "1"', 'VERSION = "2"')
            assert running.reload()["ok"]
            running.wait_for("exit", pid=old)
            asking.all_have("2")
        assert not [error for error in asking.errors if isinstance(error, Broken)]
        assert running.end() == 0
