"""`recluster upgrade` of a cluster with parts that have something of their own to hand on: what
workers write, AF_UNIX names, another user."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from clients import all_answer, get, get_unix
from ctlcase import FAST, ask
from harness import GENEROUS, edit, until
from test_identity import NOBODY, Reached, as_root
from upgradecase import opened, start, upgrade

APPS = Path(__file__).parent.parent / "apps"

# ---- what workers write ------------------------------------------------------------------


def test_what_workers_write_is_still_read(apps, tmp_path):
    (apps / "speaks.py").write_text(
        "import sys, http_server\n"
        "class Speaks(http_server.Handler):\n"
        "    def do_GET(self):\n"
        "        print('said', self.path, flush=True)\n"
        "        super().do_GET()\n"
        "http_server.http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Speaks)"
        ".serve_forever()\n"
    )
    with (
        open(tmp_path / "out", "wb+") as out,
        start(apps, "--prefix", target=("speaks.py", "0"), stdout=out) as running,
    ):
        running.wait_each("ready", 2)
        upgrade(running)
        get(running.port, "/after")
        until(lambda: "said /after" in (tmp_path / "out").read_text())


def test_the_last_lines_are_still_told(apps):
    """Those of before, in their order, and then the new master's."""
    (apps / "says.py").write_text(
        "import os, sys\n"
        "os.write(1, b'caf\\xc3\\xa9 \\xff\\n' + b'x' * 20000 + b'\\n')\n"
        "import http_server as it\n"
        "it.http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), it.Handler).serve_forever()\n"
    )

    def lines(pid):
        code, out, _ = ask(pid, "logs", "--json", "-n", 1000)
        assert code == 0
        return [json.loads(line) for line in out]

    with start(apps, "--prefix", target=("says.py", "0"), stdout=subprocess.DEVNULL) as running:
        running.wait_each("ready", 2)
        before = lines(running.process.pid)
        assert sum("caf\u00e9" in one["message"] for one in before) == 2
        for _ in range(2):
            upgrade(running)
            now = lines(running.process.pid)
            assert now[: len(before)] == before
            assert any(one.get("event") == "upgraded" for one in now[len(before) :])
            before = now


# ---- AF_UNIX ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_unix_listeners_go_on(apps, tmp_path, kind):
    program = apps / "unix_asyncio.py"
    where = str(tmp_path / "listener")
    if kind == "abstract":
        program.write_text(program.read_text().replace("sys.argv[1]", "chr(0) + sys.argv[1]"))
        where = f"recluster-test-{os.getpid()}"
    address = where if kind == "path" else "\0" + where
    with start(apps, target=("unix_asyncio.py", where)) as running:
        running.wait_each("ready", 2)
        upgrade(running)  # at rest: the first workers may have removed each other's path
        workers = running.pids()
        for _ in range(2):
            upgrade(running)
            assert running.pids() == workers
            assert get_unix(address)["pid"] in workers.values()
        edit(program, 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        until(lambda: get_unix(address)["version"] == "2")
        assert running.end() == 0


def test_who_has_bound_a_name_and_not_listened_there_yet_is_known(apps, tmp_path):
    """At its listen each gets the one queue of that name, also those who bound it second."""
    where, gates = tmp_path / "listener", [tmp_path / f"gate-{slot}" for slot in range(3)]
    for gate in gates:
        os.mkfifo(gate)
    (apps / "listens_later.py").write_text(
        "import os, socket, sys, threading, http_server as it\n"
        "later = socket.socket(socket.AF_UNIX)\n"
        f"later.bind({str(where)!r})\n"
        "def listen():\n"
        f"    open({str(tmp_path)!r} + '/gate-' + os.environ['WORKER_ID']).read()\n"
        "    later.listen()\n"
        "    while True:\n"
        "        with later.accept()[0] as client:\n"
        "            client.sendall(b'%d\\n' % os.getpid())\n"
        "threading.Thread(target=listen, daemon=True).start()\n"
        "it.http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), it.Handler).serve_forever()\n"
    )
    with start(apps, target=("listens_later.py", "0"), workers=3) as running:
        running.wait_each("ready", 3)
        os.close(opened(gates[0]))
        first = until(lambda: pid_at(where))
        for _ in range(2):
            upgrade(running)
        for gate in gates[1:]:
            os.close(opened(gate))
        pids = set(running.pids().values())
        answered = {first}
        until(lambda: answered.add(pid_at(where)) or answered == pids)
        assert not any("Traceback" in line for line in running.log())
        assert running.end() == 0


def pid_at(path):
    """Who answers there; None: nobody listens."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(GENEROUS)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return None
        return int(client.makefile().readline())


# ---- another user ------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("balance", ["auto", "dispatch"])
@pytest.mark.parametrize("door", ["notify", "preload"])
def test_workers_are_still_that_user(door, balance):
    """Those that go on, and those that the next master starts."""
    folder = Path(tempfile.mkdtemp(prefix="recluster-"))
    folder.chmod(0o777)
    shutil.copy(APPS / "http_server.py", folder)
    turns = ("--balance", "round_robin", "--balance-by", "dispatch")
    options = (*FAST, "--workers", 2, "--door", door, "--user", "nobody", "--umask", "027")
    options += turns if balance == "dispatch" else ()
    try:
        with Reached(*options, "http_server.py", 0, cwd=folder) as running:
            running.wait_each("ready", 2)
            workers = running.pids()
            for _ in range(2):
                upgrade(running)
            assert running.pids() == workers
            assert os.stat(f"/proc/{running.process.pid}").st_uid == 0
            os.kill(workers[0], signal.SIGKILL)
            running.wait_for("ready", slot=0, where=lambda one: one["pid"] != workers[0])
            assert {identity(pid) for pid in running.pids().values()} == {(NOBODY, 0o027)}
            upgrade(running)
            assert running.reload()["ok"]
            assert {identity(pid) for pid in running.pids().values()} == {(NOBODY, 0o027)}
            all_answer(running.port, set(running.pids().values()))
            assert running.end() == 0
    finally:
        shutil.rmtree(folder)


def identity(pid):
    """Its user, if that is the same in each sense, and its umask."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    (uid,) = set(facts["Uid"].split())
    return int(uid), int(facts["Umask"], 8)
