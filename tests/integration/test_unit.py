"""What a service manager is told, by sd_notify(3), message by message."""

import os
import select
import signal
import socket
import sys
import time

import pytest
from clients import get
from harness import Running, comes_to_rest, edit, free_port
from servicemanager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    path = (
        str(tmp_path / "notify") if request.param == "path" else f"@recluster-{os.urandom(8).hex()}"
    )
    with Manager(path) as made:
        yield made


@pytest.fixture
def plain(tmp_path):
    with Manager(str(tmp_path / "notify")) as made:
        yield made


def test_from_start_to_end(apps, manager):
    args = ("--workers", 2, "http_server.py", free_port())
    with Running(*args, cwd=apps, env=manager.env()) as running:
        first = manager.receive()
        assert first["STATUS"] == "generation 1, 0 of 2 ready"
        assert int(first["EXTEND_TIMEOUT_USEC"]) > 60e6  # ready_timeout
        up = manager.has("READY")
        assert up["READY"] == "1" and up["MAINPID"] == str(running.process.pid)
        assert up["STATUS"] == "generation 1, 2 of 2 ready" and "EXTEND_TIMEOUT_USEC" not in up
        assert not any("READY" in one for one in manager.seen[:-1])
        running.wait_each("ready", 2)

        before = time.monotonic_ns() // 1000
        running.signal(signal.SIGHUP)
        again = manager.has("RELOADING")
        assert before <= int(again["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        over = manager.has("READY")
        assert over["STATUS"] == "generation 2, 2 of 2 ready"
        assert running.wait_for("reload")["ok"]

        running.signal(signal.SIGTERM)
        last = manager.has("STOPPING")
        assert last["STOPPING"] == "1" and last["STATUS"].startswith("shutting down")
        assert int(last["EXTEND_TIMEOUT_USEC"]) > 10e6
        assert running.wait() == 0
        assert not any("READY" in one for one in manager.seen[manager.seen.index(last) :])


def test_a_reload_that_fails_is_over_too_and_says_why(apps, plain):
    with Running(
        "--workers", 1, "http_server.py", free_port(), cwd=apps, env=plain.env()
    ) as running:
        plain.has("READY")
        edit(apps / "http_server.py", "import", "oh no\nimport")
        running.signal(signal.SIGUSR2)
        plain.has("RELOADING")
        over = plain.has("READY")
        assert over["STATUS"].startswith("generation 1, 1 of 1 ready; reload failed: worker 0")
        assert running.end() == 0


def test_one_that_fails_at_once_is_told_as_well(apps, plain):
    """systemctl waits for both."""
    options = ("--workers", 2, "--balance", "reuseport", "--control", apps / "control")
    with Running(*options, "http_server.py", free_port(), cwd=apps, env=plain.env()) as running:
        plain.has("READY")
        running.signal(signal.SIGHUP)
        running.signal(signal.SIGHUP)
        running.wait_for("reload", where=lambda event: event["ok"])
        plain.until(
            lambda message: "READY" in message and "generation" in message.get("STATUS", "")
        )
        kinds = [kind for one in plain.seen for kind in ("RELOADING", "READY") if kind in one]
        assert kinds[-1] == "READY" and kinds.count("RELOADING") >= 1
        assert running.end() == 0


def test_on_probation_the_unit_is_ready(apps, plain):
    options = ("--workers", 1, "--bake", 3600)
    with Running(*options, "http_server.py", free_port(), cwd=apps, env=plain.env()) as running:
        plain.has("READY")
        running.signal(signal.SIGUSR2)
        plain.has("RELOADING")
        assert plain.has("READY")["STATUS"] == "generation 2, 1 of 1 ready; on probation"
        assert running.end() == 0


def test_a_slot_that_cannot_boot_does_not_keep_the_others(apps, plain):
    program = apps / "half.py"
    program.write_text(
        "import os\nassert os.environ['WORKER_ID'] == '0'\n" + (apps / "http_server.py").read_text()
    )
    with Running("--workers", 2, program, free_port(), cwd=apps, env=plain.env()) as running:
        assert plain.has("READY")["STATUS"] == "generation 1, 1 of 2 ready"
        assert running.end() == 0


def test_a_crash_and_its_successor_change_the_status(apps, plain):
    with Running(
        "--workers", 2, "http_server.py", free_port(), cwd=apps, env=plain.env()
    ) as running:
        plain.has("READY")
        running.wait_each("ready", 2)
        os.kill(running.pids()[0], signal.SIGKILL)
        plain.status("1 of 2 ready")
        plain.status("2 of 2 ready")
        assert running.end() == 0


def test_a_shutdown_that_waits_asks_for_more_time(apps, plain):
    """The worker does not leave; `waiting` comes after 2 s."""
    options = ("--workers", 1, "--shutdown-timeout", 4, "--timeout", 60)
    program = apps / "slow.py"
    program.write_text(
        "import http.server, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: None)\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])),"
        " http.server.BaseHTTPRequestHandler).serve_forever()\n"
    )
    with Running(*options, program, free_port(), cwd=apps, env=plain.env()) as running:
        plain.has("READY")
        running.wait_for("ready")
        running.signal(signal.SIGTERM)
        first = plain.has("STOPPING")
        more = plain.has("EXTEND_TIMEOUT_USEC")
        assert first is not more and "STOPPING" not in more
        assert running.wait() == 0


def test_watchdog_by_the_loop_itself(apps, plain):
    env = plain.env(WATCHDOG_USEC="400000")
    with Running("--workers", 1, "http_server.py", free_port(), cwd=apps, env=env) as running:
        plain.has("READY")
        for _ in range(3):
            plain.has("WATCHDOG")
        os.kill(running.process.pid, signal.SIGSTOP)
        while select.select([plain.socket], [], [], 1.0)[0]:
            plain.receive()
        os.kill(running.process.pid, signal.SIGCONT)
        plain.has("WATCHDOG")
        assert running.end() == 0


@pytest.mark.parametrize("env", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}])
def test_no_watchdog_where_none_was_asked_for(apps, plain, env):
    with Running(
        "--workers", 1, "http_server.py", free_port(), cwd=apps, env=plain.env(**env)
    ) as running:
        plain.has("READY")
        running.wait_for("ready")
        comes_to_rest(running.pidfd)
        assert running.end() == 0
        assert not any("WATCHDOG" in one for one in plain.seen)


TELLS = """
import json, os, sys, http.server
from recluster import worker
names = ("NOTIFY_SOCKET", "NOTIFY_FD", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")
worker.send({"found": [name for name in names if name in os.environ]})
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), None).serve_forever()
"""


@pytest.mark.parametrize("kind", ["forked", "fresh", "command", "preload"])
def test_workers_have_nothing_of_it(apps, plain, kind):
    program = apps / "tells.py"
    program.write_text(TELLS)
    options = {
        "forked": ("--workers", 1),
        "fresh": ("--workers", 1, "--env", "PYTHONHASHSEED=1"),
        "preload": ("--workers", 1, "--door", "preload"),
        "command": ("--workers", 1, "--", sys.executable),
    }[kind]
    env = plain.env(NOTIFY_FD="77", WATCHDOG_USEC="60000000", FDSTORE="9")
    with Running(*options, program, free_port(), cwd=apps, env=env) as running:
        assert running.wait_for("message")["message"] == {"found": []}
        plain.has("READY")
        fds = [os.readlink(f"/proc/{running.pids()[0]}/fd/{fd}") for fd in (0, 1, 2)]
        assert not any("socket" in one for one in fds)
        assert running.end() == 0


@pytest.mark.parametrize("how", ["full", "gone", "nowhere", "nonsense"])
def test_a_manager_that_does_not_listen_changes_nothing(apps, tmp_path, how):
    port = free_port()
    with Manager(str(tmp_path / "notify")) as manager:
        if how == "full":
            stuffing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            stuffing.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    stuffing.sendto(b"X=1", manager.address)
        elif how == "gone":
            manager.socket.close()
        address = {"nowhere": str(tmp_path / "none"), "nonsense": "vsock:1:2"}.get(
            how, manager.address
        )
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}
        with Running("--workers", 2, "http_server.py", port, cwd=apps, env=env) as running:
            running.wait_each("ready", 2)
            assert get(port)["version"]
            assert running.reload()["ok"]
            if how == "full":  # what is of weight comes when there is room
                order = [kind for kind in iter_kinds(manager) if kind]
                assert order[:3] == ["READY", "RELOADING", "READY"]
                stuffing.close()
            else:
                said = [line for line in running.log() if "NOTIFY_SOCKET" in line or "told" in line]
                assert len(said) == 1, said
            assert running.end() == 0


def iter_kinds(manager):
    found = 0
    while found < 3:
        message = manager.receive()
        kind = next((kind for kind in ("RELOADING", "READY") if kind in message), None)
        found += bool(kind)
        yield kind
