"""Sockets that are there before the first worker: systemd's activation, --bind; port 0."""

import os
import socket
import subprocess
import sys
import time

import pytest
from clients import GENEROUS, Load, answers, get, read_answer, send_request
from harness import Running, edit, free_port, let_go
from test_unix import get_unix

ACTIVATE = (
    "import os, sys\n"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[1])\n"
    "os.environ['LISTEN_FDNAMES'] = sys.argv[2]\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[3:]])\n"
)


class Activated(Running):
    """A master that has these sockets from its descriptor 3 on, as systemd does it."""

    def __init__(self, sockets, *args, cwd, env=None, names="web"):
        self.sockets, self.names = sockets, names
        super().__init__(*args, cwd=cwd, env=env)

    def _popen(self, command, **more):
        inherited, before = more.pop("pass_fds"), more.pop("preexec_fn", None)

        def place():
            if before:
                before()
            # Not over the events' pipe, nor over each other.
            high = [os.dup2(fd.fileno(), 200 + at) for at, fd in enumerate(self.sockets)]
            for at, fd in enumerate(high):
                os.dup2(fd, 3 + at)

        count = len(self.sockets)
        for fd in inherited:  # moved out of the way of 3, 4, ...
            assert fd >= 3 + count
        whole = [sys.executable, "-c", ACTIVATE, str(count), self.names, *command[1:]]
        more["pass_fds"] = [*inherited, *range(3, 3 + count)]
        return subprocess.Popen(whole, preexec_fn=place, **more)  # noqa: PLW1509


def listening(family=socket.AF_INET, address=("127.0.0.1", 0), reuse=True):
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    sock.bind(address)
    sock.listen(64)
    return sock


def waiting_request(connect):
    connection = connect()
    connection.settimeout(GENEROUS)
    send_request(connection)
    return connection


def served(running, ask=get, where=None, wanted=2):
    """Until so many workers have answered."""
    where = running.port if where is None else where
    seen = set()
    until = time.monotonic() + GENEROUS
    while len(seen) < wanted:
        assert time.monotonic() < until, seen
        seen.add(ask(where)["worker"])
    return seen


@pytest.mark.parametrize("reuse", [True, False], ids=["joined", "one_for_all"])
def test_a_socket_of_systemd_is_served_queue_first_and_stays_open(apps, reuse):
    sock = listening(reuse=reuse)
    port = sock.getsockname()[1]
    early = [
        waiting_request(lambda: socket.create_connection(("127.0.0.1", port))) for _ in range(4)
    ]
    args = ("--workers", 2, "--timeout", 10, "asyncio_server.py", port)
    with Activated([sock], *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert {read_answer(one)["version"] for one in early} == {"1"}
        served(running)
        with Load(port, clients=4) as load:
            load.more(30)
            edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
            assert running.reload()["ok"]
            cutover = time.monotonic()
            for slot in (0, 1):
                running.wait_for("exit", slot=slot, generation=1)
            # Where all have one queue, the old take from it until they are told to stop.
            cutover = cutover if reuse else time.monotonic()
            load.more(30)
        # A server that dies of the stop signal may have accepted one a moment before.
        lost = load.failures()
        assert len(lost) <= (0 if reuse else 8), lost
        assert {type(one.error).__name__ for one in lost} <= {"Broken"}
        assert {a.facts["version"] for a in load.since(cutover) if a.facts} == {"2"}
        served(running)
        assert running.end() == 0
    # It is systemd's, and serves the next one.
    late = waiting_request(lambda: socket.create_connection(("127.0.0.1", port)))
    with Activated([sock], *args, cwd=apps) as running:
        assert read_answer(late)["version"] == "2"
        assert running.end() == 0
    sock.close()


def test_a_path_of_systemd_is_shared_by_all_and_never_moved(apps, tmp_path):
    path = str(tmp_path / "web.socket")
    sock = listening(socket.AF_UNIX, path)
    inode = os.stat(path).st_ino
    early = socket.socket(socket.AF_UNIX)
    early.connect(path)
    early.settimeout(GENEROUS)
    send_request(early)
    args = ("--workers", 2, "--timeout", 10, "unix_asyncio.py", path)
    with Activated([sock], *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert read_answer(early)["version"] == "1"
        served(running, get_unix, path)
        edit(apps / "unix_asyncio.py", 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        for slot in (0, 1):
            running.wait_for("exit", slot=slot, generation=1)
        assert get_unix(path)["version"] == "2"
        assert running.end() == 0
    assert os.stat(path).st_ino == inode and os.listdir(tmp_path).count("web.socket") == 1
    sock.close()


def test_the_variables_are_for_the_master(apps, tmp_path):
    program = tmp_path / "tells.py"
    program.write_text(
        "import os, socket, sys\n"
        "from recluster import worker\n"
        "worker.send({'env': [k for k in os.environ if k.startswith('LISTEN_')]})\n"
        "s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "worker.send({'fd': s.fileno()})\n"
        "s.accept()\n"
    )
    sock = listening()
    args = ("--workers", 1, program, sock.getsockname()[1])
    with Activated([sock], *args, cwd=apps) as running:
        message = running.wait_for("message")["message"]
        assert message["env"] == []
    # Not for this process: they pass unchanged.
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    with Running("--workers", 1, program, free_port(), cwd=apps, env=env) as running:
        assert sorted(running.wait_for("message")["message"]["env"]) == sorted(env)
    sock.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_bind_is_there_before_the_workers(apps, host):
    port = free_port()
    program = apps / "asyncio_server.py"
    program.write_text(program.read_text().replace('"127.0.0.1"', repr(host.strip("[]"))))

    def ask(where):
        with socket.create_connection((host.strip("[]"), where), GENEROUS) as connection:
            send_request(connection)
            return read_answer(connection)

    options = ("--bind", f"{host}:{port}", "--workers", 2, "--timeout", 10)
    with Running(*options, program, port, cwd=apps) as running:
        running.wait_for("online")
        early = ask(port)  # nobody listens yet, and it is not refused
        assert early["version"] == "1"
        running.wait_each("ready", 2)
        served(running, ask, port)
        edit(program, 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        assert ask(port)["version"] == "2"
        assert running.end() == 0


def test_bind_of_a_path(apps, tmp_path):
    path = str(tmp_path / "web.socket")
    options = ("--bind", f"unix:{path}", "--workers", 2, "--timeout", 10)
    with Running(*options, "unix_socketserver.py", path, cwd=apps) as running:
        running.wait_for("online")
        assert get_unix(path)["version"] == "1"
        running.wait_each("ready", 2)
        edit(apps / "unix_socketserver.py", 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]
        for slot in (0, 1):
            running.wait_for("exit", slot=slot, generation=1)
        assert get_unix(path)["version"] == "2"
        assert running.end() == 0
    assert not os.path.exists(path)


def test_bind_of_an_address_in_use_is_one_line(apps):
    with listening() as foreign:
        address = f"127.0.0.1:{foreign.getsockname()[1]}"
        with Running("--bind", address, "asyncio_server.py", "0", cwd=apps) as running:
            assert running.wait() == 1
            told = running.stderr().strip().splitlines()[-1]  # behind what "auto" is here
            assert told == f"recluster: bind {address}: Address already in use"


def test_port_0_of_several_addresses_is_the_same_in_all_workers(apps):
    with Running("--workers", 3, "told_ports.py", cwd=apps) as running:
        told = {
            tuple(running.wait_for("message", slot=slot)["message"]["ports"]) for slot in range(3)
        }
        assert len(told) == 1
        ports = told.pop()
        assert len(set(ports[:2])) == 2
        running.wait_each("ready", 3)
        for port in ports[:2]:
            facts = answers(port, 60)
            assert {one["worker"] for one in facts} == {"0", "1", "2"}
            assert {one["port"] for one in facts} == {port}
        assert running.reload()["ok"]
        again = {
            tuple(running.wait_for("message", slot=slot, generation=2)["message"]["ports"])
            for slot in range(3)
        }
        assert again == {ports}


# ---- R11, R12: nobody listens there ------------------------------------------------------


def refused(port):
    """Whether a client is sent away: it gets a reset, or the end."""
    with socket.create_connection(("127.0.0.1", port), GENEROUS) as client:
        try:
            return client.recv(1) == b""
        except ConnectionResetError:
            return True


def is_refused(port):
    try:
        return refused(port)
    except (ConnectionRefusedError, ConnectionResetError):
        return True


def test_an_address_that_no_worker_claims_is_named_and_its_clients_are_refused(apps):
    bound, listened = free_port(), free_port()
    options = ("--workers", 2, "--bind", f"127.0.0.1:{bound}")
    with Running(*options, "http_server.py", listened, cwd=apps) as running:
        running.wait_each("ready", 2)
        told = running.wait_for("unclaimed")
        assert (told["address"], told["refused"]) == (f"127.0.0.1:{bound}", True)
        assert is_refused(bound)
        assert running.status()["unclaimed"] == [f"127.0.0.1:{bound}"]
        [line] = [line for line in running.log() if "no worker listens" in line]
        assert f"127.0.0.1:{bound}" in line and "refused" in line
        served(running)
        assert running.end() == 0


@pytest.mark.parametrize("reuse", [True, False], ids=["joined", "one_for_all"])
def test_so_are_those_of_a_socket_of_systemd_which_stays_its_own(apps, reuse):
    sock = listening(reuse=reuse)
    port = sock.getsockname()[1]
    early = socket.create_connection(("127.0.0.1", port))
    early.settimeout(GENEROUS)
    args = ("--workers", 1, "http_server.py", free_port())
    with Activated([sock], *args, cwd=apps) as running:
        assert running.wait_for("unclaimed")["address"] == f"127.0.0.1:{port}"
        with pytest.raises(ConnectionResetError):
            early.recv(1)
        assert is_refused(port)
        assert running.end() == 0
    late = socket.create_connection(("127.0.0.1", port))  # into the queue, as before
    late.close()
    early.close()
    sock.close()


def test_a_worker_that_claims_it_late_is_served(apps, tmp_path):
    """It listens on the second address when it is told to."""
    os.mkfifo(tmp_path / "go")
    program = tmp_path / "late.py"
    program.write_text(
        "import http.server, sys, threading\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Length', '13')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(b'{\"version\": 1}')\n"
        "def serve(port):\n"
        "    http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()\n"
        "threading.Thread(target=serve, args=(int(sys.argv[1]),)).start()\n"
        "open(sys.argv[3]).read()\n"
        "serve(int(sys.argv[2]))\n"
    )
    bound, other = free_port(), free_port()
    args = ("--workers", 1, "--bind", f"127.0.0.1:{bound}", program, other, bound, tmp_path / "go")
    with Running(*args, cwd=apps) as running:
        assert running.wait_for("unclaimed")["refused"]
        assert is_refused(bound)
        let_go(tmp_path / "go")
        assert not running.wait_for("unclaimed")["refused"]
        assert running.status()["unclaimed"] == []
        assert get(bound)["version"] == 1
        running.signal(9)


def test_an_inherited_socket_that_stands_in_the_way_is_named(apps):
    """R11: ListenStream=8000 is [::]:8000, of both families."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = sock.getsockname()[1]
    edit(apps / "http_server.py", '"127.0.0.1"', '"0.0.0.0"')
    args = ("--workers", 2, "--give-up", 2, "--respawn", 0.1, "http_server.py", port)
    with Activated([sock], *args, cwd=apps) as running:
        assert running.wait() == 1
        lines = [line for line in running.log() if "stands in the way" in line]
        assert len(lines) == 1
        assert f"0.0.0.0:{port}" in lines[0] and f"[::]:{port}" in lines[0]
    sock.close()
