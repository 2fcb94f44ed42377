"""Each row of docs/servers.md: it runs as written there, and is reloaded under load.

What pip, apt or npm would have to bring first is installed by .ci/run; a row whose server
is not here is skipped. NPM_PACKAGES is the `node_modules` that has those of Node; with
SERVERS_PRELOAD=auto those in Python run behind a mold.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from clients import Load, Stale, all_answer, get
from ebpf import may_load_programs
from harness import Running, edit, free_port
from table import SERVERS, rows

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "servers.md"
NPM = Path(os.environ.get("NPM_PACKAGES", HERE / "node_modules"))
WORKERS = 2
PRELOAD = os.environ.get("SERVERS_PRELOAD", "none")


def test_the_page_has_the_table():
    assert rows() in PAGE.read_text(), "python tests/servers/table.py prints it"


def lacks(need):
    kind, _, name = need.rpartition(":")
    if kind == "npm":
        return not (NPM / name).exists()
    return not (shutil.which(name) if kind == "command" else importlib.util.find_spec(name))


@pytest.fixture(params=SERVERS, ids=lambda server: server.name.split(",")[0].replace(" ", "_"))
def server(request):
    for need in request.param.needs:
        if lacks(need):
            pytest.skip(f"{need} is not installed")
    return request.param


@pytest.fixture
def apps(tmp_path):
    directory = tmp_path / "apps"
    shutil.copytree(HERE / "apps", directory, ignore=shutil.ignore_patterns("__pycache__"))
    if NPM.exists():
        (directory / "node_modules").symlink_to(NPM)
    os.chmod(tmp_path, 0o755)
    return directory


# ---- one question in each language ------------------------------------------------------


def redis(port):
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b"INCR seen\r\n")
        assert connection.recv(100).startswith(b":")
    return {"version": "1"}


def memcached(port):
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b"version\r\n")
        assert connection.recv(100).startswith(b"VERSION")
    return {"version": "1"}


def quic(port):
    from aioquic.asyncio import connect
    from aioquic.quic.configuration import QuicConfiguration

    async def ask():
        configuration = QuicConfiguration(alpn_protocols=["facts"], verify_mode=False)
        async with connect("127.0.0.1", port, configuration=configuration) as client:
            reader, writer = await client.create_stream()
            writer.write_eof()
            return json.loads(await reader.read())

    return asyncio.run(asyncio.wait_for(ask(), 30))


ASK = {"http": get, "redis": redis, "memcached": memcached, "quic": quic}


# ---- the row ------------------------------------------------------------------------------


def words(server, apps):
    port = str(free_port())
    for file in ("nginx.conf", "apache.conf"):
        text = (apps / file).read_text()
        (apps / file).write_text(text.replace("PORT", port))
    return port, [word.replace("PORT", port) for word in server.words]


def test_it_runs_and_is_reloaded(server, apps):
    if PRELOAD != "none" and server.words[0] == "--":
        pytest.skip("not in Python")
    ask, env = ASK[server.speaks], {**server.env, "PWD": str(apps)}
    if server.before:
        subprocess.run(server.before, cwd=apps, env={**os.environ, **env}, check=True)
    port, typed = words(server, apps)
    options = ("--workers", WORKERS, "--respawn", 0.1, "--timeout", 20, "--preload", PRELOAD)
    with Running(*options, *typed, cwd=apps, env=env) as running:
        old = running.wait_each("ready", WORKERS, 60)
        everybody_answers(server, ask, int(port))
        with Load(int(port), ask, clients=4) as load:
            load.more(20)
            if server.by_worker or server.speaks == "http":
                edit(apps / server.edits[0], *server.edits[1:])
            cutover = time.monotonic()
            outcome = running.reload(60)
            assert outcome["ok"], outcome
            served = time.monotonic()
            load.more(20)
            for slot, event in old.items():
                running.wait_for("exit", 60, slot=slot, pid=event["pid"])
            load.more(20)
        lost = [one for one in load.failures() if not isinstance(one.error, Stale)]
        if server.cut_without_ebpf and not may_load_programs():
            lost = [one for one in lost if one.ended < cutover or served < one.began]
        assert lost == []
        if server.speaks == "http":
            assert ask(int(port))["version"] == "2"
        everybody_answers(server, ask, int(port))
        assert running.end(timeout=60) == 0


def everybody_answers(server, ask, port):
    if server.by_worker:
        all_answer(port, {str(slot) for slot in range(WORKERS)}, ask, by=("worker",), least=10)
    else:
        assert all(ask(port) for _ in range(10))
