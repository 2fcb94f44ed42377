"""What a retired worker still owes is paid: failure modes 6 and 16, and slow answers."""

import select
import shutil

import pytest
from clients import connect, is_quiet, read_answer, send_request
from harness import Running, edit, free_port

SERVERS = {
    "http.server": ["http_server.py", "0"],
    "asyncio": ["asyncio_server.py", "0"],
    "aiohttp": ["aiohttp_server.py", "0"],
    "uvicorn": ["-m", "uvicorn", "asgi_app:app", "--log-level", "warning", "--port"],
    "node": ["--", "node", "node_server.js", "0"],
}
NEEDS = {"aiohttp": "aiohttp", "uvicorn": "uvicorn"}
OPTIONS = ("--workers", 2, "--drain-settle", 0.3)


@pytest.fixture(params=SERVERS)
def running(request, apps):
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("node is not installed")
    words = SERVERS[request.param]
    port = [str(free_port())] if words[-1] == "--port" else []
    with Running(*OPTIONS, *words, *port, cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


def test_accepted_but_not_yet_asked(running):
    """Failure mode 6: connect, reload, and only long after the settle time send the request."""
    old = set(running.pids().values())
    with connect(running.port) as early:
        assert running.reload()["ok"]
        assert is_quiet(early, 1.0)
        send_request(early)
        assert read_answer(early)["pid"] in old
    for pid in old:
        running.wait_for("exit", pid=pid)
    assert running.end() == 0


def test_accepted_but_not_yet_asked_at_shutdown(running):
    """Failure mode 6: connect, SIGTERM, and only long after send the request."""
    old = set(running.pids().values())
    with connect(running.port) as early:
        running.signal(15)
        assert is_quiet(early, 1.0)
        send_request(early)
        assert read_answer(early)["pid"] in old
    assert running.wait() == 0


def test_a_slow_answer_is_finished_by_a_server_that_dies_of_sigterm(apps):
    with Running(*OPTIONS, "slow_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        old = set(cluster.pids().values())
        with connect(cluster.port) as slow:
            send_request(slow, "/3")
            assert cluster.reload()["ok"]
            assert read_answer(slow)["pid"] in old
        assert cluster.end() == 0


def test_an_idle_connection_is_let_go_after_drain_quiet(apps):
    with Running(*OPTIONS, "--drain-quiet", 1, "slow_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        with connect(cluster.port) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert b" 200 " in idle.recv(65536)
            old = cluster.pids()
            assert cluster.reload()["ok"]
            exits = [cluster.wait_for("exit", pid=pid) for pid in old.values()]
            assert {end["signal"] for end in exits} == {"SIGTERM"}
            assert select.select([idle], [], [], 10)[0]
        assert cluster.end() == 0


def test_timeout_is_the_end_of_all_patience(apps):
    options = ("--workers", 1, "--drain-settle", 0.2, "--timeout", 1)
    with Running(*options, "slow_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 1)
        old = cluster.pids()[0]
        with connect(cluster.port) as slow:
            send_request(slow, "/60")
            assert cluster.reload()["ok"]
            assert cluster.wait_for("exit", pid=old)["signal"] == "SIGKILL"
        assert cluster.end() == 0


def test_scaling_down_serves_what_waits(apps):
    """Failure mode 16: TTOU while the slot's only thread is busy; its queue is served."""
    with Running(*OPTIONS, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        waiting = [connect(cluster.port) for _ in range(40)]  # each worker blocks in one of them
        cluster.signal(22)
        pids = {str(slot): pid for slot, pid in cluster.pids().items()}
        for connection in waiting:
            send_request(connection)
        served = set()
        for connection in waiting:
            with connection:
                answer = read_answer(connection)
                served.add(answer["worker"])
                assert answer["pid"] == pids[answer["worker"]]
        assert served == {"0", "1"}
        assert cluster.wait_for("exit", slot=1)["signal"] == "SIGTERM"
        assert cluster.end() == 0


def test_the_working_directory_is_a_link_that_moves(apps, tmp_path):
    """Failure mode 32: current -> releases/2 is what the next generation runs."""
    second = tmp_path / "second"
    shutil.copytree(apps, second)
    edit(second / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
    for directory, number in ((apps, 1), (second, 2)):  # found by cwd, and by sys.path[0]
        (directory / "release.txt").write_text(str(number))
        (directory / "release.py").write_text(f"NUMBER = {number}\n")
        facts = 'import release\nRELEASE = [open("release.txt").read(), release.NUMBER]\nclass H'
        edit(directory / "http_server.py", "class H", facts)
        edit(directory / "http_server.py", '{"version"', '{"is": RELEASE, "version"')
    current = tmp_path / "current"
    current.symlink_to(apps)
    with Running(
        *OPTIONS, "http_server.py", "0", cwd=current, env={"PWD": str(current)}
    ) as cluster:
        cluster.wait_each("ready", 2)
        current.unlink()
        current.symlink_to(second)
        assert cluster.reload()["ok"]
        with connect(cluster.port) as fresh:
            send_request(fresh)
            answer = read_answer(fresh)
            assert (answer["version"], answer["is"]) == ("2", ["2", 2])
        assert cluster.end() == 0
