"""Ready means that a connection was taken (R1): a parent that listens proves nothing."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from clients import Load, get, get_unix
from ctlcase import ask
from harness import Running, edit, free_port, let_go, replace

FAST = ("--drain-settle", 0.2)
BOOT = 1.5
DIES = """
import os, socketserver, threading
accept = socketserver.TCPServer.get_request
def get_request(self):  # the first one is the master's proof that it serves
    threading.Timer(1.0, os.kill, (os.getpid(), 11)).start()
    return accept(self)
socketserver.TCPServer.get_request = get_request
"""
SLOW = f"import time\n\ntime.sleep({BOOT})\n"
LISTENS = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
BEFORE
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
"""


def gunicorn(port):
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed")
    options = ("-b", f"127.0.0.1:{port}", "--log-level", "error")
    return ("-m", "gunicorn", *options, "wsgi_app:app")


def gunicorn_at(path):
    """As `gunicorn`, of an AF_UNIX path: one queue, from which both generations accept."""
    gunicorn(0)
    return ("-m", "gunicorn", "-b", f"unix:{path}", "--log-level", "error", "wsgi_app:app")


def uwsgi(port):
    beside = os.path.join(os.path.dirname(sys.executable), "uwsgi")
    program = beside if os.path.exists(beside) else shutil.which("uwsgi")
    if program is None:
        pytest.skip("uwsgi is not installed")
    options = ("--master", "--need-app", "--die-on-term", "--disable-logging", "--processes", 2)
    where = ("--http-socket", f"127.0.0.1:{port}", "--wsgi-file", "wsgi_app.py")
    return ("--", program, *options, *where, "--callable", "app")


@pytest.mark.parametrize("server", [gunicorn, uwsgi])
def test_slow_and_broken_imports_under_load(server, apps, tmp_path):
    """Nobody is connected to code that imports still, and never to code that cannot."""
    port, app, control = free_port(), apps / "wsgi_app.py", str(tmp_path / "ctl.sock")
    app.write_text(SLOW + app.read_text())
    options = ("--workers", 2, "--boots", 2, "--control", control, *FAST)
    with Running(*options, *server(port), cwd=apps) as cluster:
        first = cluster.wait_each("ready", 2)
        assert all(event["seconds"] >= BOOT for event in first.values()), "it only listened"
        with Load(port, clients=4) as load:
            load.more(20)
            edit(app, 'VERSION = "1"', 'VERSION = "2"')
            assert cluster.reload()["ok"]
            load.more(20)
            later = [answer.facts["version"] for answer in load.answers[-10:]]
            assert later == ["2"] * 10
            edit(app, 'VERSION = "2"', 'raise RuntimeError("no database")')
            code, out, err = ask("--control", control, cluster.process.pid, "reload", "--wait")
            assert code == 1, (out, err)
            assert "before it was ready" in "".join([*out, *err]), (out, err)
            load.more(20)
        assert not load.failures()
        assert {answer.facts["version"] for answer in load.answers[-10:]} == {"2"}
        assert not [line for line in cluster.log() if "hangs" in line]
        assert cluster.end() == 0
    for event in cluster.seen:
        if event["event"] == "ready":
            assert event["seconds"] >= BOOT


@pytest.mark.core
def test_of_one_queue_for_all_generations_who_waits_there_is_looked_at(apps, tmp_path):
    app, path = apps / "wsgi_app.py", str(tmp_path / "app.sock")
    app.write_text(SLOW + app.read_text())
    options = ("--workers", 2, "--boots", 2, *FAST)
    with Running(*options, *gunicorn_at(path), cwd=apps) as cluster:
        first = cluster.wait_each("ready", 2)
        assert all(event["seconds"] >= BOOT for event in first.values()), "it only listened"
        edit(app, 'VERSION = "1"', 'VERSION = "2"')
        assert cluster.reload()["ok"]
        for event in first.values():  # until then it accepts from that queue too
            cluster.wait_for("exit", pid=event["pid"])
        assert get_unix(path)["version"] == "2"
        edit(app, 'VERSION = "2"', 'raise RuntimeError("no database")')
        outcome = cluster.reload()
        assert not outcome["ok"] and "before it was ready" in outcome["why"], outcome
        assert get_unix(path)["version"] == "2"
        assert cluster.end() == 0
    for event in cluster.seen:
        if event["event"] == "ready":
            assert event["seconds"] >= BOOT


SLEEPS_BETWEEN = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
listener.setblocking(False)
while True:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        time.sleep(0.2)
"""


def test_who_is_never_seen_to_wait_is_ready_when_it_has_been_idle(apps, tmp_path):
    (apps / "sleeps.py").write_text(SLEEPS_BETWEEN)
    with Running("--workers", 1, *FAST, "sleeps.py", tmp_path / "app.sock", cwd=apps) as cluster:
        assert cluster.wait_for("ready")["seconds"] >= 4.5
        assert "is idle, and not seen to wait for connections" in cluster.stderr()
        assert cluster.end() == 0


def test_who_is_at_work_for_long_before_it_accepts_is_not_taken_for_idle(apps, tmp_path):
    spins = "until = time.monotonic() + 6\nwhile time.monotonic() < until:\n    pass\nwhile True"
    (apps / "spins.py").write_text(SLEEPS_BETWEEN.replace("while True", spins))
    with Running("--workers", 1, *FAST, "spins.py", tmp_path / "app.sock", cwd=apps) as cluster:
        assert cluster.wait_for("ready")["seconds"] >= 6
        assert cluster.end() == 0


def test_who_has_so_much_to_do_that_it_never_waits_is_ready(apps, tmp_path):
    """It has accepted: that is seen by what it has open."""
    path = str(tmp_path / "app.sock")
    code = SLEEPS_BETWEEN.replace("listener.accept()[0].close()", "kept.append(listener.accept())")
    code = code.replace("time.sleep(0.2)", "pass").replace("while", "kept = []\nwhile")
    (apps / "spins.py").write_text(code)
    with Running("--workers", 1, *FAST, "spins.py", path, cwd=apps) as cluster:
        cluster.wait_for("listening")
        assert cluster.count("ready") == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            cluster.wait_for("ready")
        assert cluster.end() == 0


def before(apps, code):
    (apps / "listens.py").write_text(LISTENS.replace("BEFORE", code))


def test_who_listens_and_never_accepts_is_not_ready(apps):
    before(apps, "")
    options = ("--workers", 1, "--ready-timeout", 3, *FAST)
    with Running(*options, "listens.py", free_port(), cwd=apps) as cluster:
        cluster.wait_for("ready")
        before(apps, "threading.Event().wait()")
        outcome = cluster.reload()
        assert not outcome["ok"]
        assert "took no connection on 127.0.0.1:" in outcome["why"]
        assert cluster.end() == 0


STEERED = {
    "auto": ("--balance", "auto"),
    "reuseport": ("--balance", "reuseport"),
    "shared": ("--balance", "shared"),
    "source_ip": ("--balance", "source_ip"),
    "turns": ("--balance", "round_robin"),
    "dispatch": ("--balance", "round_robin", "--balance-by", "dispatch"),
}


@pytest.mark.parametrize("steered", STEERED)
def test_a_connection_is_taken_whoever_steers(steered, apps):
    """By a classic program, by eBPF where that is allowed, and where the master hands out."""
    for slot in range(2):
        os.mkfifo(apps / f"gate.{slot}")
    before(apps, "")
    options = ("--workers", 2, "--boots", 2, *STEERED[steered], *FAST)
    port = free_port()
    with Running(*options, "listens.py", port, cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        before(apps, "import os; open(f'gate.{os.environ[\"WORKER_ID\"]}').close()")
        cluster.signal(signal.SIGUSR2)
        cluster.wait_each("listening", 2, generation=2)
        for _ in range(50):  # the first generation answers: the second stands at its gates
            assert get(port) == {}
        assert cluster.count("ready") == 2
        for slot in range(2):
            let_go(apps / f"gate.{slot}")
        assert cluster.wait_for("reload")["ok"]
        assert get(port) == {}
        assert cluster.end() == 0


def test_a_server_that_defers_its_accepts_is_woken(apps):
    """The kernel would keep an empty connection from it until there is data."""
    with Running("--workers", 1, *FAST, "defers_accept.py", free_port(), cwd=apps) as cluster:
        cluster.wait_for("ready")
        assert not [line for line in cluster.log() if "cannot be proved from here" in line]
        assert cluster.reload()["ok"]
        assert cluster.end() == 0


def test_a_deploy_that_dies_of_serving_is_told_of(apps):
    """Without `bake` nothing takes it back: one line says what can be done, and the tries
    become fewer."""
    app = apps / "http_server.py"
    (apps / "lives.py").write_text(app.read_text())
    (apps / "dies.py").write_text(DIES + app.read_text())
    options = ("--workers", 2, "--boots", 2, "--respawn", 0.1, *FAST)
    with Running(*options, "http_server.py", 0, cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        replace(app, apps / "dies.py")
        assert cluster.reload()["ok"]
        failing = cluster.wait_for("failing")
        assert failing["generation"] == 2
        assert "was ended by signal 11" in failing["why"]
        (line,) = [line for line in cluster.log() if "generation 2 fails" in line]
        assert "mend the code and reload; ctl rollback cannot help any more, --bake would" in line
        cluster.wait_for("exit", where=lambda event: event["next_try"])
        replace(app, apps / "lives.py")
        assert cluster.reload()["ok"]
        assert cluster.end() == 0
        assert cluster.count("failing") == 1


ASKED = {
    "classic": ("--balance", "reuseport"),
    "kernel": ("--balance", "auto"),
    "pairs": ("--balance", "round_robin", "--balance-by", "dispatch"),
}


@pytest.mark.parametrize("steered", ASKED)
def test_ready_url_is_asked_of_this_worker_until_it_says_yes(steered, apps):
    """The verdict quotes what it said; while it says no, the old one serves."""
    os.mkfifo(apps / "first.0")
    os.mkfifo(apps / "second.0")
    options = ("--workers", 1, "--ready-url", "/healthz", "--ready-timeout", 3, *ASKED[steered])
    port = free_port()
    with Running(*options, *FAST, "says_unready.py", port, "first", cwd=apps) as cluster:
        cluster.wait_for("listening")
        let_go(apps / "first.0")
        first = cluster.wait_for("ready")
        edit(apps / "says_unready.py", "sys.argv[2]", '"second"')
        outcome = cluster.reload()
        assert not outcome["ok"]
        said = "/healthz was answered 503 Service Unavailable: no database for 0"
        assert said in outcome["why"]
        assert get(port)["pid"] == first["pid"]
        cluster.signal(signal.SIGUSR2)
        cluster.wait_for("listening", generation=3)
        let_go(apps / "second.0")
        assert cluster.wait_for("reload")["ok"]
        assert get(port)["pid"] != first["pid"]
        assert cluster.end() == 0


def test_ready_url_by_tls(apps):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=any")
    files = ("-keyout", apps / "key", "-out", apps / "certificate")
    subprocess.run([*new, *files], check=True, capture_output=True)
    (apps / "both").write_text((apps / "key").read_text() + (apps / "certificate").read_text())
    for slot in range(2):
        os.mkfifo(apps / f"gate.{slot}")
    options = ("--workers", 2, "--boots", 2, "--ready-url", "https:/healthz", *FAST)
    words = ("says_unready.py", free_port(), "gate", "both")
    with Running(*options, *words, cwd=apps) as cluster:
        cluster.wait_each("listening", 2)
        for slot in range(2):
            let_go(apps / f"gate.{slot}")
        cluster.wait_each("ready", 2)
        assert cluster.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to make a network namespace")
def test_where_no_connection_can_be_made_to_listen_is_enough(apps):
    """In another network namespace the address leads to somebody else, or to nobody."""
    (apps / "elsewhere.py").write_text(
        "import ctypes, http.server, sys\n"
        "assert ctypes.CDLL(None).unshare(0x40000000) == 0\n"
        "at = ('0.0.0.0', int(sys.argv[1]))\n"
        "http.server.HTTPServer(at, http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    with Running("--workers", 1, *FAST, "elsewhere.py", free_port(), cwd=apps) as cluster:
        cluster.wait_for("ready")
        (line,) = [line for line in cluster.log() if "cannot be proved from here" in line]
        assert "to listen is enough" in line
        assert cluster.end() == 0


MANY = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in sys.argv[1:]:
    waiting.register(socket.create_server(("127.0.0.1", int(port))), selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        with key.fileobj.accept()[0] as client:
            client.recv(1)
"""


def source_ports(ports):
    """From which there are connections to those, or were a minute ago."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(line[1][-4:], 16), int(line[2][-4:], 16)) for line in lines]
    return [here for here, there in ends if there in ports]


def test_what_is_over_takes_few_ports_from_who_connects_here(apps):
    """Each of the master's leaves a TIME_WAIT, and a port of its own would be lost to all."""
    (apps / "many.py").write_text(MANY)
    ports = {free_port() for _ in range(20)}
    with Running("--workers", 4, "--boots", 4, *FAST, "many.py", *ports, cwd=apps) as cluster:
        cluster.wait_each("ready", 4)
        for _ in range(2):
            assert cluster.reload()["ok"]
        found = source_ports(ports)
        assert len(found) >= 4 * 3 * len(ports) / 2, "they are not seen"
        assert len(set(found)) <= 70
        assert cluster.end() == 0
