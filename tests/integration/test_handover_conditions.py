"""What a connection must be to be given on, and what happens to those that are not: as a server
that knows nothing of the stop signal has them, and as one does that finishes what it has begun."""

import contextlib
import os
import shutil
import ssl
import subprocess

import deny
import pytest
from clients import connect
from harness import Running, until

FAST = ("--workers", 1, "--drain-settle", 0.2, "--drain-owes", 2, "--timeout", 600)
SERVER = """
import asyncio, os, signal, ssl, sys, time
busy = set()
async def answer(reader, writer):
    while line := await reader.readline():
        busy.add(writer)
        length = 0
        while (field := (await reader.readline()).strip().lower()):
            if field.startswith(b"content-length:"):
                length = int(field.split(b":")[1])
        body = await reader.readexactly(length)
        path = line.split()[1].decode()
        if path == "/slow":
            await asyncio.sleep(1.5)
        if path == "/fork":  # it has everything that the server had accepted
            if os.fork() == 0:
                time.sleep(3)
                os._exit(0)
        text = f"{os.environ['RECLUSTER_GENERATION']} {path} {len(body)}\\n"
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(text)}\\r\\n\\r\\n"
        writer.write((head + text).encode())
        await writer.drain()
        busy.discard(writer)
    writer.close()
async def main():
    context = None
    if len(sys.argv) > 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[2])
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]), ssl=context)
    if "CATCHES" not in os.environ:
        await server.serve_forever()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    server.close()
    while busy:
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


def in_a_container():
    """Where we may not take what a worker has, its library gives it."""
    deny.install(["pidfd_getfd"])


@pytest.fixture(params=[None, in_a_container], ids=["pidfd_getfd", "library"])
def where(request):
    return request.param


@pytest.fixture(params=[{}, {"CATCHES": "1"}], ids=["dies", "catches"])
def ends(request):
    return request.param


class Client:
    """One connection, over which it says what it wants."""

    def __init__(self, stack, port, wrap=None):
        self.socket = stack.enter_context(connect(port))
        if wrap:
            self.socket = stack.enter_context(wrap(self.socket))
        self.stream = stack.enter_context(self.socket.makefile("rb"))

    def say(self, data):
        self.socket.sendall(data)

    def ask(self, path, body=b""):
        self.say(request(path, body))
        return self.hear()

    def hear(self):
        """(generation, path, length of the body) of an answer; None: the end of the connection."""
        status = self.stream.readline()
        if not status:
            return None
        assert b" 200 " in status, status
        while self.stream.readline().strip():
            pass
        generation, path, length = self.stream.readline().split()
        return int(generation), path.decode(), int(length)


def request(path, body=b""):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n"
    return head.encode() + body


@pytest.fixture
def cluster(tmp_path, where, ends):
    (tmp_path / "server.py").write_text(SERVER)
    words = (*FAST, "server.py", "0")
    with Running(*words, cwd=tmp_path, preexec_fn=where, env=ends) as running:
        running.wait_for("ready")
        yield running


@pytest.fixture
def stack():
    with contextlib.ExitStack() as opened:
        yield opened


def reload(cluster):
    old = cluster.pids()[0]
    assert cluster.reload()["ok"]
    return old


def draining(cluster, old):
    """Its connections are watched, or it is gone."""
    until(lambda: cluster.states().get(old) not in ("serving", "settling"))


def test_a_request_in_pieces(cluster, stack):
    """A few bytes that may become a request."""
    client, busy = Client(stack, cluster.port), Client(stack, cluster.port)
    assert client.ask("/a") == (1, "/a", 0)
    client.say(b"G")
    old = reload(cluster)
    draining(cluster, old)
    until(lambda: busy.ask("/busy"))
    client.say(request("/b")[1:])
    assert client.hear()[1:] == ("/b", 0)
    until(lambda: busy.ask("/busy") == (2, "/busy", 0))
    assert client.ask("/c") == (2, "/c", 0)
    cluster.wait_for("exit", pid=old)


def test_a_body_in_flight(cluster, stack):
    """What lies there is not a request, though it looks like one."""
    client = Client(stack, cluster.port)
    body = b"GET / HTTP/1.1\r\n\r\n" * 4000
    whole = request("/body", body)
    assert client.ask("/a") == (1, "/a", 0)
    client.say(whole[:100])
    old = reload(cluster)
    draining(cluster, old)
    client.say(whole[100:30000])
    client.say(whole[30000:])
    answer = client.hear()
    assert answer[1:] == ("/body", len(body))
    until(lambda: client.ask("/c") == (2, "/c", 0))
    cluster.wait_for("exit", pid=old)


def test_pipelined_requests(cluster, stack):
    """The first is answered at once, and the second, read with it, is not."""
    client = Client(stack, cluster.port)
    assert client.ask("/a") == (1, "/a", 0)
    client.say(request("/b") + request("/slow"))
    assert client.hear() == (1, "/b", 0)
    reload(cluster)
    assert client.hear() == (1, "/slow", 0)


def test_a_half_closed_client(cluster, stack):
    """It waits for its answer, and asks for nothing more."""
    client, busy = Client(stack, cluster.port), Client(stack, cluster.port)
    client.say(request("/slow"))
    client.socket.shutdown(1)
    assert busy.ask("/busy") == (1, "/busy", 0)
    old = reload(cluster)
    assert client.hear() == (1, "/slow", 0)
    assert client.hear() is None
    until(lambda: busy.ask("/busy") == (2, "/busy", 0))
    cluster.wait_for("exit", pid=old)


def test_a_server_that_forks_keeps_copies(cluster, stack):
    """Which nobody reads: the client never has two servers, nor none."""
    client = Client(stack, cluster.port)
    assert client.ask("/fork") == (1, "/fork", 0)
    old = reload(cluster)
    until(lambda: client.ask("/b") == (2, "/b", 0))
    cluster.wait_for("exit", pid=old)


def test_http2_is_not_held(tmp_path, stack, where):
    """Its preface is that of another protocol: an end is not withheld."""
    (tmp_path / "server.py").write_text(
        SERVER.replace("line.split()[1].decode()", '"/h2"').replace(
            "while (field := (await reader.readline()).strip().lower()):\n            if field",
            "while False:\n            if field",
        )
    )
    more = {"preexec_fn": where, "env": {"CATCHES": "1"}}
    with Running(*FAST, "server.py", "0", cwd=tmp_path, **more) as running:
        running.wait_for("ready")
        client = Client(stack, running.port)
        for _ in range(20):
            client.say(b"PRI * HTTP/2.0\r\n")
            assert client.hear() == (1, "/h2", 0)
        old = reload(running)
        running.wait_for("exit", pid=old)
        assert client.hear() is None


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_tls_is_not_moved(tmp_path, stack, where, ends):
    """Nobody else has its keys. While it is busy its server goes on, if it would die."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=any")
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (tmp_path / "both").write_text(key.read_text() + certificate.read_text())
    (tmp_path / "server.py").write_text(SERVER)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    words = (*FAST, "server.py", "0", "both")
    with Running(*words, cwd=tmp_path, preexec_fn=where, env=ends) as running:
        running.wait_for("ready")
        client = Client(stack, running.port, context.wrap_socket)
        assert client.ask("/a") == (1, "/a", 0)
        old = reload(running)
        draining(running, old)
        if ends:
            running.wait_for("exit", pid=old)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert client.hear() is None
        else:
            for _ in range(1000):
                assert client.ask("/b") == (1, "/b", 0)
            assert os.path.exists(f"/proc/{old}")
