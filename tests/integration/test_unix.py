"""AF_UNIX listeners with real servers: shared, reloaded, respawned, closed."""

import ctypes
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import stat
import threading
import time
from dataclasses import dataclass

import pytest
from clients import GENEROUS, Load, get, get_unix, read_answer, send_request
from harness import Running, edit, free_port, let_go, stop, until

WORKERS = 3


@dataclass(frozen=True)
class Server:
    needs: str
    args: tuple[str, ...]
    file: str
    bound: str = "PATH"
    stops: bool = True
    """It catches the stop signal, and closes nothing that it has accepted."""
    leaves: bool = False
    """Its path, at its end; without recluster too."""


def module(name, *args, app="asgi_app", **facts):
    return Server(name, ("-m", name, *args), app + ".py", **facts)


SERVERS = {
    "asyncio": Server(
        "sys", ("unix_asyncio.py", "PATH"), "unix_asyncio.py", stops=False, leaves=True
    ),
    "socketserver": Server(
        "sys", ("unix_socketserver.py", "PATH"), "unix_socketserver.py", stops=False, leaves=True
    ),
    "uvicorn": module(
        "uvicorn",
        "asgi_app:app",
        *("--uds", "PATH", "--log-level", "error"),
        stops=False,
        leaves=True,
    ),
    "hypercorn": module(
        "hypercorn", "asgi_app:app", "--bind", "unix:PATH", stops=False, leaves=True
    ),
    "gunicorn": module(
        "gunicorn", "-b", "unix:PATH", "--log-level", "error", "wsgi_app:app", app="wsgi_app"
    ),
    # It closes what has sent nothing yet when it is told to stop (seen on a busy machine).
    "granian": module(
        "granian", "--uds", "PATH", "--interface", "asgi", "asgi_app:app", stops=False
    ),
    "node": Server("node", ("--", "node", "unix_node.js", "PATH"), "unix_node.js"),
}


@pytest.fixture(params=SERVERS)
def server(request):
    found = SERVERS[request.param]
    if not (shutil.which(found.needs) or importlib.util.find_spec(found.needs)):
        pytest.skip(f"{found.needs} is not installed")
    return found


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "app.socket")


def command(server, path):
    return [argument.replace("PATH", path) for argument in server.args]


def serving(path, count=60):
    return {get_unix(path)["worker"] for _ in range(count)}


class Watcher:
    """Looks at a path all the time, as a health check or a proxy might, and counts misses."""

    def __init__(self, path):
        self.path, self.looks, self.missing = path, 0, 0
        self._over, self._thread = False, threading.Thread(target=self._watch)

    def _watch(self):
        while not self._over:
            self.looks += 1
            self.missing += not os.path.exists(self.path)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self._over = True
        self._thread.join()


def names(path):
    return sorted(os.listdir(os.path.dirname(path)))


def test_serves_reloads_and_survives(server, path, apps):
    options = ("--workers", WORKERS, "--respawn", 0.1, "--timeout", 20, "--drain-quiet", 0.2)
    with Running(*options, *command(server, path), cwd=apps) as running:
        old = {slot: event["pid"] for slot, event in running.wait_each("ready", WORKERS).items()}
        assert running.wait_for("listening")["address"] == f"unix:{path}"
        with Load(path, get_unix, clients=8) as load, Watcher(path) as watcher:
            while {a.facts["worker"] for a in load.answers if a.facts} != {"0", "1", "2"}:
                load.more(20)
            os.chmod(path, 0o651)
            edit(apps / server.file, 'VERSION = "1"', 'VERSION = "2"')
            outcome = running.reload(60)
            cutover = time.monotonic()
            assert outcome["ok"], outcome
            for slot, pid in old.items():
                running.wait_for("exit", 60, slot=slot, pid=pid)
            # One queue for all: the old generation takes from it until it ends.
            ended = time.monotonic()
            load.more(50)
            assert {a.facts["version"] for a in load.since(ended)} == {"2"}
            assert server.stops or all(
                type(a.error).__name__ == "Broken" and cutover < a.ended for a in load.failures()
            )
            assert not server.stops or load.failures() == []
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o651
            assert watcher.looks > 100 and watcher.missing == 0

            victim = running.wait_for("ready", slot=1, generation=2)["pid"]
            os.kill(victim, signal.SIGKILL)
            running.wait_for("exit", slot=1, pid=victim)
            dead = time.monotonic()
            assert running.wait_for("ready", slot=1, generation=2)["pid"] != victim
            while not any(a.facts and a.facts["worker"] == "1" for a in load.since(dead)):
                load.more(20)
            load.stop()
            failures = load.failures()
            assert all(type(a.error).__name__ == "Broken" and a.began < dead for a in failures)
        assert running.end() == 0
        # A server that cuts what it has accepted may say so with a traceback of its own.
        assert not server.stops or "Traceback" not in running.stderr()
    assert names(path) == (["app.socket", "apps"] if server.leaves else ["apps"])


def test_a_path_that_a_killed_master_has_left_is_bound_again(path, apps):
    args = ("--workers", 2, "--timeout", 10, *command(SERVERS["uvicorn"], path))
    pytest.importorskip("uvicorn")
    for version, end in ("1", "SIGKILL"), ("2", "SIGTERM"):
        with Running(*args, cwd=apps) as running:
            running.wait_each("ready", 2)
            assert running.reload()["ok"]
            assert get_unix(path)["version"] == version
            if end == "SIGKILL":
                running.process.kill()
                running.wait()
            else:
                assert running.end() == 0
            assert names(path) == ["app.socket", "apps"]
        if version == "1":
            edit(apps / "asgi_app.py", 'VERSION = "1"', 'VERSION = "2"')


def test_who_removes_what_was_left_never_removes_what_a_sibling_has_bound(tmp_path, apps):
    count, workers = 40, 4
    for number in range(count):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / f"{number}.sock"))
    with socket.create_server(("127.0.0.1", 0)) as told:
        told.settimeout(GENEROUS)
        port = told.getsockname()[1]
        args = ("unlinks_stale.py", f"unix:{tmp_path}", str(count), str(port))
        with Running("--workers", workers, *args, cwd=apps):
            for _ in range(workers):
                with told.accept()[0] as one, one.makefile() as words:
                    one.settimeout(GENEROUS)
                    assert json.load(words) == []


# A file system that never answers: nobody reads what the kernel asks of it.
HUNG = """
import os, socket, sys, threading

def bind():
    socket.socket(socket.AF_UNIX).bind(sys.argv[2] + "/a/b.sock")

if os.environ["WORKER_ID"] == "0":
    threading.Thread(target=bind, daemon=True).start()
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.recv(999)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    connection.close()
"""


def mount_hung(device, folder):
    """In a mount namespace of this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    for call in (
        lambda: libc.unshare(0x20000),  # CLONE_NEWNS
        lambda: libc.mount(None, b"/", None, 0x44000, None),  # MS_REC | MS_PRIVATE
        lambda: libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options),
    ):
        if call() < 0:
            raise OSError(ctypes.get_errno(), "mount")


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs mount(2)"
)
def test_a_path_in_a_file_system_that_hangs_does_not_hold_up_the_master(tmp_path, apps):
    program, folder, port = tmp_path / "hung.py", tmp_path / "mount", free_port()
    program.write_text(HUNG)
    folder.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(device, True)
    try:
        args = ("--workers", 2, "--timeout", 5, program, port, folder)
        with Running(*args, cwd=apps, preexec_fn=lambda: mount_hung(device, folder)) as running:
            # The kernel asks: the first request is INIT, the second the bind's look-up.
            assert select.select([device], [], [], GENEROUS)[0]
            pids = {slot: one["pid"] for slot, one in running.wait_each("ready", 2).items()}
            os.kill(pids[1], signal.SIGKILL)
            running.wait_for("exit", slot=1, pid=pids[1])
            running.wait_for("ready", slot=1)
            assert get(port) == {}
            assert running.reload()["ok"]
            for slot, pid in pids.items():
                if slot == 0:
                    running.wait_for("exit", slot=slot, pid=pid)
            assert running.end() == 0
    finally:
        os.close(device)


SLOW = """
import os, socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        open(sys.argv[2]).read()  # a FIFO: until the test lets go
        self.wfile.write(b"done by %d" % os.getpid())

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

Server(sys.argv[1], Handler).serve_forever()
"""


def test_a_request_under_way_is_answered_by_a_server_that_dies_of_the_stop_signal(path, tmp_path):
    program, fifo = tmp_path / "slow.py", tmp_path / "fifo"
    program.write_text(SLOW)
    os.mkfifo(fifo)
    options = ("--workers", 1, "--timeout", 60, "--drain-settle", 0.1, "--drain-quiet", 30)
    with Running(*options, program, path, fifo, cwd=tmp_path) as running:
        old = running.wait_for("ready")["pid"]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(GENEROUS)
            client.connect(path)
            client.sendall(b"go\n")
            assert running.reload()["ok"]
            let_go(fifo)
            assert client.recv(99) == b"done by %d" % old
        running.wait_for("exit", pid=old)


def test_connections_that_wait_survive_the_only_worker_s_death(path, apps):
    with Running(
        "--workers", 1, "--respawn", 0.1, "unix_socketserver.py", path, cwd=apps
    ) as running:
        victim = running.wait_for("ready")["pid"]
        stop(victim)
        waiting = []
        for _ in range(5):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(GENEROUS)
            one.connect(path)
            send_request(one)
            waiting.append(one)
        os.kill(victim, signal.SIGKILL)
        successor = running.wait_for("ready", where=lambda event: event["pid"] != victim)["pid"]
        assert {read_answer(one)["pid"] for one in waiting} == {successor}
        for one in waiting:
            one.close()


def test_a_reload_that_fails_changes_nothing(path, apps):
    with Running("--workers", 2, "unix_asyncio.py", path, cwd=apps) as running:
        running.wait_each("ready", 2)
        inode = os.stat(path).st_ino
        edit(
            apps / "unix_asyncio.py",
            "async def answer",
            "assert os.environ['WORKER_ID'] == '0'\n\n\nasync def answer",
        )
        assert not running.reload()["ok"]
        assert os.stat(path).st_ino == inode and get_unix(path)["version"] == "1"
        assert running.end() == 0


def test_workers_whose_unlink_was_not_seen_share_the_path_in_the_end(tmp_path, apps):
    """Nothing in the command tells of a path: the first workers' unlinks are their own."""
    path = str(tmp_path / "listener")
    with Running("--workers", 3, "--timeout", 5, "unix_asyncio.py", path, cwd=apps) as running:
        running.wait_each("ready", 3)
        until(lambda: serving(path) == {"0", "1", "2"})
        assert running.end() == 0


def test_an_abstract_name_is_shared_and_reloaded(apps):
    program = apps / "unix_asyncio.py"
    program.write_text(program.read_text().replace("sys.argv[1]", "chr(0) + sys.argv[1]"))
    name = f"recluster-test-{os.getpid()}"
    with Running("--workers", 2, "--timeout", 10, program, name, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert running.wait_for("listening")["address"] == f"unix:@{name}"
        assert get_unix("\0" + name)["version"] == "1"
        edit(program, 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        for slot in (0, 1):
            running.wait_for("exit", slot=slot, generation=1)
        assert get_unix("\0" + name)["version"] == "2"
        assert running.end() == 0


def test_a_manager_of_multiprocessing_is_the_worker_s_own(tmp_path):
    program = tmp_path / "managed.py"
    program.write_text(
        "import multiprocessing, socket\n"
        "from recluster import worker\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.Manager() as manager:\n"
        "        shared = manager.dict(seen=1)\n"
        "        worker.send({'seen': shared['seen']})\n"
        "    worker.send({'closed': True})\n"
        "    socket.create_server(('127.0.0.1', 0)).accept()\n"
    )
    with Running("--workers", 1, program, cwd=tmp_path) as running:
        assert running.wait_for("message")["message"] == {"seen": 1}
        assert running.wait_for("message")["message"] == {"closed": True}
        assert not running.wait_for("listening")["address"].startswith("unix:")
