"""Reloads that are not all at once, or not final: bake, surge, max_draining."""

import contextlib
import signal

from clients import Load, connect, get, send_request
from harness import Running, edit

FAST = ("--workers", 2, "--respawn", 0.1, "--drain-settle", 0.2)


def test_a_crash_while_baking_rolls_back(apps):
    # The new code serves one connection, and that would be ours.
    options = (*FAST, "--bake", 20, "--ready-when", "listening")
    with Running(*options, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        old = set(cluster.pids().values())
        (apps / "http_server.py").write_text((apps / "crashes_after_ready.py").read_text().replace(
            "from http_server import Handler, http", "import http.server\nHandler = "
            "http.server.SimpleHTTPRequestHandler"))  # fmt: skip
        cluster.signal(signal.SIGUSR2)
        cluster.wait_each("ready", 2, generation=2)
        for _ in range(100):  # new code serves one request, and dies
            with connect(cluster.port) as fatal, contextlib.suppress(ConnectionError):
                send_request(fatal)
                while fatal.recv(65536):
                    pass
            if cluster.count("reload"):
                break
        outcome = cluster.wait_for("reload")
        assert not outcome["ok"]
        assert "rolled back" in outcome["why"]
        assert {get(cluster.port)["pid"] for _ in range(20)} <= old
        assert cluster.end() == 0


def test_the_old_generation_goes_when_the_new_one_has_baked(apps):
    with Running(*FAST, "--bake", 1, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        old = set(cluster.pids().values())
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        with Load(cluster.port) as load:
            cluster.signal(signal.SIGUSR2)
            assert cluster.wait_for("reload")["ok"]
            for pid in old:
                cluster.wait_for("exit", pid=pid)
            load.more(50)
        assert load.failures() == []
        assert cluster.end() == 0


def test_a_rolling_reload_has_one_worker_more_at_most(apps):
    options = ("--workers", 3, "--surge", 1, *FAST[2:])
    with Running(*options, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 3)
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        with Load(cluster.port) as load:
            outcome = cluster.reload()
            done = max(event["seen"] for event in cluster.seen)
            load.more(50)
        assert outcome["ok"]
        assert load.failures() == []
        assert {answer.facts["version"] for answer in load.since(done)} == {"2"}
        starting = 0
        for event in cluster.seen:
            starting += (event["event"] == "online") - (event["event"] == "ready")
            assert event.get("generation") != 2 or starting <= 1
        assert cluster.end() == 0


def test_too_many_generations_that_drain(apps):
    """A held connection keeps one; the oldest must go when there are too many."""
    options = ("--max-draining", 1, "--drain-quiet", "timeout", *FAST)
    with Running(*options, "slow_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        held = connect(cluster.port)
        send_request(held, "/60")
        oldest = cluster.pids()
        assert cluster.reload()["ok"]
        second = connect(cluster.port)
        send_request(second, "/60")
        assert cluster.reload()["ok"]
        for pid in oldest.values():
            cluster.wait_for("exit", pid=pid)
        assert any("generations drain" in line for line in cluster.log())
        held.close()
        second.close()
        assert cluster.end(signal.SIGQUIT) == 0
