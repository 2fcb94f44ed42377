"""`recluster upgrade` where it cannot be, or not yet: the old master goes on, and says why."""

import json
import os
import signal

import pytest
from clients import (
    all_answer,
    connect,
    get,
    read_answer,
    send_request,
)
from ctlcase import ask
from embedcase import BEGIN  # noqa: F401 - the fixture's
from harness import (
    Running,
    edit,
)
from upgradecase import Installed, asked, opened, refused, start, upgrade


@pytest.fixture
def installed(tmp_path):
    return Installed(tmp_path / "site")


@pytest.fixture
def running(apps):
    with start(apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


# ---- what cannot, never takes over -------------------------------------------------------

BROKEN = {
    "does not even begin": ("__init__.py", '"""', 'raise OSError("half installed")\n"""'),
    "has a syntax error": ("master/wishes.py", "class Wishes", "class class Wishes"),
    "knows another form": ("master/heritage.py", "FORMAT = 1", "FORMAT = 2"),
    "has a part more": ("master/heritage.py", '"began", "o', '"began", "more", "o'),
    "knows more of workers": (
        "population/members.py",
        "    relief: int = 0",
        "    more: int = 0\n    relief: int = 0",
    ),
    "says nothing": ("verbs/successor.py", "    print(READY)\n", ""),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_version_that_cannot_never_takes_over(apps, installed, how):
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        workers, before = running.pids(), running.status()["version"]
        installed.change(*BROKEN[how])
        assert "cannot go on" in refused(running)
        assert running.status()["version"] == before
        all_answer(running.port, set(workers.values()))
        assert any("not upgraded: " in line for line in running.log())
        assert running.count("upgraded") == running.count("exit") == 0


def test_an_older_version_without_upgrades_never_takes_over(apps, installed):
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        installed.change("verbs/entry.py", '"--check-state"', '"--another-word"')
        assert "--check-state" in refused(running)
        get(running.port)


def test_a_broken_configuration_leaves_the_old_master_in_charge(apps):
    config = apps / "recluster.toml"
    config.write_text('name = "one"\n')
    with start(apps, "-c", config) as running:
        running.wait_each("ready", 2)
        config.write_text("name = \n")
        assert "recluster.toml" in refused(running)
        config.write_text('name = "two"\n')
        assert "name changed since" in refused(running)
        config.write_text('name = "one"\n')
        upgrade(running)


def test_one_that_fails_after_all_says_so_and_ends(apps, installed):
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        installed.change(
            "master/succeeding.py",
            "    core.alive().resume(",
            '    raise OSError(5, "cannot")\n    core.alive().resume(',
        )
        with asked(running.process.pid) as answer, pytest.raises(json.JSONDecodeError):
            answer()
        assert running.wait() == 1
        assert any("the workers end with it" in line for line in running.log())


# ---- when it can be ----------------------------------------------------------------------


def test_it_waits_until_a_reload_is_over(apps):
    gate = apps / "gate"
    os.mkfifo(gate)
    with start(apps, workers=1) as running:
        running.wait_for("ready")
        edit(apps / "http_server.py", 'VERSION = "1"', f"open({str(gate)!r}).read()")
        running.signal(signal.SIGUSR2)
        end = opened(gate)
        with asked(running.process.pid) as answer:
            assert not running.pidfd.is_dead(1.0) and running.count("upgraded") == 0
            os.close(end)
            assert answer()["ok"]
        running.wait_for("upgraded")
    order = [one["event"] for one in running.seen if one["event"] in ("reload", "upgraded")]
    assert order == ["reload", "upgraded"]


def test_a_shutdown_is_not_upgraded(apps):
    with start(apps, "--shutdown-delay", 30) as running:
        running.wait_each("ready", 2)
        running.signal(signal.SIGTERM)
        assert "shutting down" in refused(running)


def test_two_at_a_time_are_one(apps, installed, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        installed.change(
            "verbs/successor.py",
            "    print(READY)\n",
            f"    open({str(fifo)!r}).read()\n    print(READY)\n",
        )
        with asked(running.process.pid) as first:
            end = opened(fifo)
            assert "another is under way" in refused(running)
            os.close(end)
            assert first()["ok"]


def test_a_queued_connection_waits_in_its_lane(apps):
    with start(apps, target=("hangs.py", "0"), workers=1) as running:
        running.wait_for("ready")
        port = running.port
        os.kill(running.pids()[0], signal.SIGSTOP)
        waiting = [connect(port) for _ in range(3)]
        for one in waiting:
            send_request(one)
        upgrade(running)
        os.kill(running.pids()[0], signal.SIGKILL)
        running.wait_for("ready", where=lambda one: one["pid"] != 0)
        for one in waiting:
            with one:
                read_answer(one)


# ---- the verb ----------------------------------------------------------------------------


def test_the_verb_tells_of_both_versions(apps, running):
    code, out, err = ask(running.process.pid, "upgrade")
    assert (code, err, len(out)) == (0, [], 1)
    assert out[0].startswith("upgrade: ") and "->" in out[0]
    running.wait_for("upgraded")


def test_the_verb_tells_why_not(apps, installed):
    with start(apps, env=installed.env) as running:
        running.wait_each("ready", 2)
        installed.change(*BROKEN["has a part more"])
        code, out, err = ask(running.process.pid, "upgrade")
        assert (code, out) == (1, []) and ": more" in err[0]


def test_dev_cannot(apps):
    with Running("http_server.py", "0", verb=("dev",), cwd=apps) as running:
        running.wait_for("ready")
        assert "none of `recluster dev`" in refused(running)


def test_an_embedded_cluster_says_that_it_cannot(program):
    said, _ = program(
        """
        import socket, threading
        cluster = cluster_of("worker_messages.py", control="here.sock")
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("here.sock")
            client.sendall(b'{"cmd": "upgrade"}\\n')
            client.setblocking(False)
            answer = []
            def come():
                try:
                    answer.append(client.recv(4096))
                except BlockingIOError:
                    pass
                return answer
            drive_until(cluster, come)
        cluster.terminate()
        print(answer[0].decode())
        """
    )
    assert "only a master of the command line" in said["error"]
