"""Kept connections of servers that die of the stop signal: busy ones move too, all or none."""

import contextlib
import resource

import deny
import pytest
from askers import Asking
from clients import KeepAlive, connect
from harness import links, until
from keptcase import CLIENTS, KEEPS, running, swap


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


def test_who_asks_for_nothing_is_held_so_long(tmp_path):
    """Without the option it would be longer than the test waits."""
    path = tmp_path / "server.py"
    path.write_text(KEEPS["asyncio"])
    with running(path, "--handover-idle", 0.5) as cluster, KeepAlive(cluster.port) as quiet:
        assert quiet.ask()["version"] == "1"
        with Asking(cluster.port, 1) as asking:
            asking.all_have("1")
            old = swap(cluster, path)[0]
            cluster.wait_for("exit", pid=old)
            assert quiet.ended()
            asking.all_have("2")
        assert not asking.errors
        assert cluster.end() == 0
