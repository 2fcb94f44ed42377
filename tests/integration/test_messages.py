"""The channel: ready, disconnect, messages both ways, and everything a worker may do to it."""

import os
import select
import shutil
import socket
from pathlib import Path

import pytest
from clients import Load, all_answer, answers, get, read_answer, send_request
from harness import Running, edit, let_go

LANGUAGES = {
    "python": ["listens_then_ready.py", "0", "go"],
    "node": ["--", "node", "node_server.js", "0", "go"],
}
# Kilobytes of a master, whatever a worker does; AddressSanitizer keeps what is freed.
MEMORY_MOST = 600_000 if os.environ.get("RECLUSTER_SANITIZE") else 100_000

OPTIONS = ("--workers", 2, "--ready-when", "ready", "--respawn", 0.1, "--drain-settle", 0.2)


@pytest.fixture(params=LANGUAGES)
def command(request, apps):
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("node is not installed")
    for slot in range(2):
        os.mkfifo(apps / f"go.{slot}")
    return LANGUAGES[request.param]


def release(apps, slot):
    """Let the worker of this slot say that it is ready."""
    let_go(apps / f"go.{slot}")


# ---- ready ---------------------------------------------------------------------------


def test_nobody_is_served_before_anyone_is_ready(command, apps):
    """Failure mode 4: they listen, and get no connection before they say that they are ready."""
    with Running(*OPTIONS, *command, cwd=apps) as running:
        running.wait_each("listening", 2)
        early = socket.socket()
        early.setblocking(False)
        early.connect_ex(("127.0.0.1", running.port))
        assert select.select([], [early], [], 0.3)[1] == []  # not even the handshake

        release(apps, 1)
        running.wait_for("ready", slot=1)
        assert select.select([], [early], [], 30)[1] == [early]
        early.setblocking(True)
        with early:
            send_request(early)
            assert read_answer(early)["worker"] == "1"
        assert {answer["worker"] for answer in answers(running.port, 30)} == {"1"}

        release(apps, 0)
        running.wait_for("ready", slot=0)
        all_answer(running.port, {"0", "1"}, by=("worker",))
        assert running.end() == 0


def test_reload_waits_until_all_are_ready(command, apps):
    """Failure mode 4: new workers listen, beside old ones that serve."""
    file = next(apps / argument for argument in command if "server" in argument or "py" in argument)
    with Running(*OPTIONS, "--boots", 2, *command, cwd=apps) as running:
        for slot in range(2):
            release(apps, slot)
        running.wait_each("ready", 2)
        edit(file, 'VERSION = "1"', 'VERSION = "2"')
        running.signal(12)
        running.wait_each("listening", 2, generation=2)
        assert {answer["version"] for answer in answers(running.port, 30)} == {"1"}
        release(apps, 0)
        running.wait_for("ready", slot=0, generation=2)
        assert {answer["version"] for answer in answers(running.port, 30)} == {"1"}
        assert running.count("reload") == 0
        release(apps, 1)
        assert running.wait_for("reload")["ok"]
        assert {answer["version"] for answer in answers(running.port, 30)} == {"2"}
        assert running.end() == 0


def test_listening_is_not_ready(apps):
    """Told to wait for the word, it does not take a listen for one."""
    os.mkfifo(apps / "go.0")
    options = ("--workers", 1, "--ready-when", "ready", "--ready-timeout", 10, "--give-up", 1)
    with Running(*options, *LANGUAGES["python"], cwd=apps) as running:
        assert running.wait() == 1
        assert (running.count("listening"), running.count("ready")) == (1, 0)


def test_started_does_not_wait_for_a_listen(apps):
    options = ("--workers", 2, "--ready-when", "started")
    with Running(*options, "never_listens.py", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert running.end() == 0


def test_seconds_until_ready_are_logged(apps):
    with Running("--workers", 1, "http_server.py", "0", cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        begin = f"recluster: worker 0 (gen 1, pid {pid}): ready after "
        (line,) = [line for line in running.log() if line.startswith(begin)]
        number, unit = line.removeprefix(begin).split()[:2]
        assert unit in ("ms", "s") and float(number) > 0
        assert running.end() == 0


# ---- disconnect ----------------------------------------------------------------------


HOLD = """if os.path.exists("hold"):
    open("hold").read()
"""


def test_disconnect_means_replaced_first(apps):
    """The only worker leaves, its successor takes long, and nobody notices."""
    edit(apps / "worker_messages.py", "worker.ready()", HOLD + "worker.ready()")
    args = ("--workers", 1, "--respawn", 0, "--ready-when", "ready", "--drain-settle", 0.2)
    with Running(*args, "worker_messages.py", "0", cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        os.mkfifo(apps / "hold")
        with Load(running.port, clients=4) as load:
            assert get(running.port, "/disconnect")["pid"] == old
            assert running.wait_for("disconnect")["pid"] == old
            running.wait_for("listening", where=lambda event: event["pid"] != old)
            load.more(1000)
            assert running.count("exit") == 0
            let_go(apps / "hold")
            new = running.wait_for("ready")["pid"]
            assert running.wait_for("exit")["pid"] == old
            load.more(10)
        assert load.failures() == []
        assert running.pids() == {0: new}
        assert running.end() == 0


def test_worker_knows_itself(apps):
    options = ("--workers", 2, "--ready-when", "ready")
    with Running(*options, "worker_messages.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        known = {(a["worker"], a["generation"]) for a in answers(running.port, 40)}
        assert known == {("0", 1), ("1", 1)}
        assert running.reload()["ok"]
        known = {(a["worker"], a["generation"]) for a in answers(running.port, 40)}
        assert known == {("0", 2), ("1", 2)}
        assert running.end() == 0


# ---- floods and rubbish --------------------------------------------------------------


def memory(pid):
    """Kilobytes that are resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


LINES = 2_500  # of each worker: as events they fit into the pipe, if it has to be, all at once


def expect_all_lines(running):
    for slot in range(2):
        for number in (0, LINES // 2, LINES - 1):
            running.wait_for("message", slot=slot, message={"number": number})
        assert running.count("message", slot=slot) == LINES


def expect_after(how):
    def expect(running):
        for slot in range(2):
            running.wait_for("message", slot=slot, message={"after": how})

    return expect


HOW = {
    "lines": expect_all_lines,
    "long": expect_after("long"),
    "garbage": expect_after("garbage"),
    "deaf": expect_after("deaf"),
    "half": lambda running: None,
    "closes": lambda running: None,
}


@pytest.mark.parametrize("how", HOW)
def test_a_mistreated_channel_harms_nobody(how, apps):
    """Failure mode 26: lines without end, half ones, rubbish, nothing read."""
    options = ("--workers", 2, "--respawn", 0.1, "--drain-settle", 0.2)
    with Running(*options, "floods_channel.py", "0", how, LINES, cwd=apps) as running:
        running.wait_each("ready", 2, timeout=60)
        HOW[how](running)
        before = running.pids()
        assert memory(running.process.pid) < MEMORY_MOST
        all_answer(running.port, {"0", "1"}, by=("worker",))
        assert running.reload(60)["ok"]
        for pid in before.values():
            running.wait_for("exit", pid=pid)
        all_answer(running.port, {"0", "1"}, by=("worker",))
        assert running.end() == 0
