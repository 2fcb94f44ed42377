"""Who asks for metrics: probes, and clients that mean no good. And whose the socket is."""

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest
from ctlcase import FAST
from harness import (
    ENVIRONMENT,
    GENEROUS,
    Running,
    comes_to_rest,
    descendants,
    free_port,
    links,
    stop,
    until,
)
from scrapecase import address_of, connect, everything, fetch, parsed, scrape, started

from recluster.metrics.exporter import CLIENTS_MOST, PATIENCE


@pytest.fixture
def running(apps):
    with started("http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


# ---- probes --------------------------------------------------------------------------


def test_probes_mean_what_health_means(running):
    assert fetch(running, "/healthz")[::2] == (200, "ready 2 of 2 slots serve\n")
    assert fetch(running, "/readyz")[::2] == (200, "ready 2 of 2 slots serve\n")
    assert fetch(running, "/readyz?min_ready=3")[::2] == (503, "degraded 2 of 3 slots serve\n")
    assert fetch(running, "/healthz?min_ready=3")[0] == 200
    assert fetch(running, "/readyz?min_ready=x")[0] == 400


def test_probes_of_one_that_does_not_serve(apps):
    with started("never_listens.py", cwd=apps) as running:
        running.wait_each("online", 2)
        assert fetch(running, "/healthz")[::2] == (503, "down 0 of 2 slots serve\n")
        assert fetch(running, "/readyz")[0] == 503


def test_a_shutdown_is_not_ready_and_still_answers(apps):
    with started("holds_connections.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        with socket.create_connection(("127.0.0.1", running.port)) as held:
            held.recv(1)
            where = address_of(running)
            running.signal(signal.SIGTERM)
            with socket.create_connection(where, GENEROUS) as probe:
                probe.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                answer = everything(probe)
        assert answer.startswith(b"HTTP/1.1 503") and answer.endswith(b"shutting down\n")
        assert running.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)


def test_other_requests(running):
    assert fetch(running, "/")[0] == 404
    status, headers, _ = fetch(running, method="POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, text = fetch(running, method="HEAD")
    assert (status, text) == (200, "") and int(headers["Content-Length"]) > 1000
    assert "0.0.4" in fetch(running, Accept="text/plain;version=0.0.4")[1]["Content-Type"]
    kinds = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    assert "openmetrics" in fetch(running, Accept=kinds)[1]["Content-Type"]
    for garbage in (b"\x16\x03\x01\x00\xff\n\n", b"GET\n\n", b"GET / HTTP/9 x\n\n", b"\n\n"):
        with connect(running) as client:
            client.sendall(garbage)
            assert everything(client).startswith(b"HTTP/1.1 400")
    with connect(running) as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET /" + b"x" * 20000)
        assert everything(client).startswith(b"HTTP/1.1 431")


# ---- hostile ones --------------------------------------------------------------------


def test_who_says_nothing_is_let_go(running):
    """And wakes the master once for it, not more."""
    with connect(running) as client:
        began = time.monotonic()
        assert everything(client) == b""
        assert time.monotonic() - began > PATIENCE / 2
    comes_to_rest(running.pidfd)


def test_who_does_not_read_is_let_go(running):
    """The answer does not fit into a small receive buffer; the rest is not waited for."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.settimeout(GENEROUS)
        client.connect(address_of(running))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert scrape(running)("workers", state="serving") == 2
        until(lambda: not connections_of(running))
        with contextlib.suppress(ConnectionError):
            everything(client)


def connections_of(running):
    """The master's open connections at its metrics port."""
    port = address_of(running)[1]
    with open(f"/proc/{running.process.pid}/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {
        f"socket:[{row[9]}]"
        for row in rows
        if row[3] != "0A" and int(row[1].rpartition(":")[2], 16) == port
    }
    return inodes & set(links(running.process.pid))


def test_a_crowd_does_not_keep_others_out_nor_the_master_from_its_work(running):
    with contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(connect(running)) for _ in range(4 * CLIENTS_MOST)]
        for client in clients:
            with contextlib.suppress(ConnectionError):  # let go already
                client.send(b"GET /metr")
        assert scrape(running)("workers", state="serving") == 2
        assert len(connections_of(running)) <= CLIENTS_MOST
        first = running.pids()[0]
        os.kill(first, signal.SIGKILL)
        running.wait_for("ready", slot=0, where=lambda one: one["pid"] != first)
        assert running.reload()["ok"]
        assert scrape(running)("generation") == 2


def test_scrapers_at_once_get_the_same_text(running):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(running)) for _ in range(CLIENTS_MOST)]
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        texts = [everything(client).partition(b"\r\n\r\n")[2].decode() for client in clients]
        assert all(("recluster_generation", ()) in parsed(text) for text in texts)


def test_without_descriptors_it_comes_back(running):
    """Who comes while there are none is let in later."""
    import resource

    pid, where = running.process.pid, address_of(running)
    scrape(running)  # what the first one opens (sock_diag) stays
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_now = list(map(int, os.listdir(f"/proc/{pid}/fd")))
    some = max(open_now) + 3
    for limit, clients in (some, some - len(open_now) + 3), (1, 10):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
        with contextlib.ExitStack() as stack:
            asking = [
                stack.enter_context(socket.create_connection(where, GENEROUS))
                for _ in range(clients)
            ]
            for client in asking:
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            if limit == 1:  # there is nobody who goes, nor does another come
                comes_to_rest(running.pidfd, 0.5)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            for client in asking:
                assert everything(client).endswith(b"slots serve\n")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert scrape(running)("workers", state="serving") == 2


def test_nothing_runs_between_two_scrapes(running):
    scrape(running)
    comes_to_rest(running.pidfd)
    scrape(running)
    comes_to_rest(running.pidfd)


# ---- whose socket it is --------------------------------------------------------------


def test_workers_do_not_have_it(running):
    where = address_of(running)
    ours = {link for link in links(running.process.pid) if link.startswith("socket:")}
    with connect(running) as half_open:
        half_open.send(b"GET ")
        first = running.pids()[0]
        os.kill(first, signal.SIGKILL)
        pid = running.wait_for("ready", slot=0, where=lambda one: one["pid"] != first)["pid"]
        lanes = {f"socket:[{inode}]" for inode in listeners(pid, running.port)}
        assert not (set(links(pid)) & ours) - lanes
    addresses = {lane["address"] for lane in running.status()["lanes"]}
    assert addresses == {f"127.0.0.1:{running.port}"} and running.port != where[1]


def test_the_process_that_imports_for_workers_does_not_have_it(apps):
    with started("--preload", "json", "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        port = address_of(running)[1]
        ours = {f"socket:[{inode}]" for inode in listeners(running.process.pid, port)}
        assert ours & set(links(running.process.pid))
        others = set(descendants(running.process.pid)) - set(running.pids().values())
        assert len(others) >= 2, "the guard and a mold"
        for pid in descendants(running.process.pid):
            assert not ours & set(links(pid))


def listeners(pid, port):
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port}


def test_nothing_holds_it_when_the_master_was_killed(running):
    where = address_of(running)
    running.process.kill()
    running.pidfd.is_dead(GENEROUS)

    def free():
        with socket.socket() as fresh:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                fresh.bind(where)
                fresh.listen()
            except OSError as error:
                assert error.errno == errno.EADDRINUSE
                return False
        return True

    until(free, 5.0)


def test_a_worker_cannot_listen_there(apps):
    port = free_port()
    words = ("--give-up", "2", "http_server.py", port)
    with started(*words, cwd=apps, metrics=f"127.0.0.1:{port}") as running:
        assert running.wait() == 1
        assert "Address already in use" in running.stderr()


def refused(metrics, cwd):
    command = [sys.executable, "-m", "recluster", "--metrics", metrics, "http_server.py", "0"]
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()[-1]


def test_an_address_that_is_taken(apps):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        where = f"127.0.0.1:{other.getsockname()[1]}"
        code, line = refused(where, apps)
    assert code == 1 and line.endswith(f"recluster: metrics: {where}: Address already in use")


def test_what_is_no_address(apps):
    for text in ("9464", "::1:9464", "localhost:", "unix:"):
        code, line = refused(text, apps)
        assert code == 2 and "metrics" in line, line


def test_a_unix_socket_is_ours_alone_and_goes_with_us(apps, tmp_path):
    path = tmp_path / "metrics.sock"
    with started("http_server.py", "0", cwd=apps, metrics=f"unix:{path}") as running:
        running.wait_each("ready", 2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(GENEROUS)
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = everything(client).partition(b"\r\n\r\n")[2].decode()
        assert parsed(text)["recluster_generation", ()] == 1
        assert running.end() == 0
    assert not path.exists()


def test_ipv6(apps):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with started("http_server.py", "0", cwd=apps, metrics="[::1]:0") as running:
        running.wait_each("ready", 2)
        assert scrape(running)("generation") == 1
        assert address_of(running)[0] == "::1"


def test_a_master_that_is_stopped_answers_when_it_goes_on(running):
    where = address_of(running)
    stop(running.process.pid)
    with socket.create_connection(where, GENEROUS) as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        os.kill(running.process.pid, signal.SIGCONT)
        client.settimeout(GENEROUS)
        assert everything(client).startswith(b"HTTP/1.1 200")


def test_the_log_says_where(apps):
    with Running(*FAST, "--metrics", "127.0.0.1:0", "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        host, port = address_of(running)
        assert any(f"metrics on http://{host}:{port}/metrics" in line for line in running.log())
