"""The control socket and `python -m recluster.ctl`: what is asked, told and refused."""

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap

import pytest
from harness import ENVIRONMENT, GENEROUS, Running, edit, replace, stop, until

from recluster import control, ctl, socketfile
from recluster.control import open_control
from recluster.options import Options

FAST = ("--workers", 2, "--boots", 2, "--respawn", 0.1, "--timeout", 10, "--drain-settle", 0.1)
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")


def command(*words):
    return [sys.executable, "-m", "recluster.ctl", *map(str, words)]


def ask(*words, **more):
    """Run the tool: (exit code, lines of standard output, of standard error)."""
    done = subprocess.run(
        command(*words),
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@contextlib.contextmanager
def asking(*words):
    """The tool, under way."""
    with subprocess.Popen(
        command(*words), env=ENVIRONMENT, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def ends(process):
    out, err = process.communicate(timeout=GENEROUS)
    assert "Traceback" not in err, err
    return process.returncode, out.splitlines(), err.splitlines()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ctl.sock")


@pytest.fixture
def running(apps, path):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))  # without a limit: with one, a full queue is an error
    connection.settimeout(GENEROUS)
    return connection


def raw(path, data):
    """What the master answers to these bytes."""
    with connect(path) as connection:
        connection.sendall(data)
        return json.loads(connection.makefile().readline())


def status_of(running, path):
    code, out, err = ask("--control", path, running.process.pid, "status", "--json")
    assert (code, len(out), err) == (0, 1, [])
    return json.loads(out[0])


# ---- status --------------------------------------------------------------------------


def test_status_for_machines(running, path):
    status = status_of(running, path)
    pids = running.pids()
    address = f"127.0.0.1:{running.port}"
    assert status["pid"] == running.process.pid
    assert (status["generation"], status["reloading"], status["closing"]) == (1, None, False)
    assert status["door"] in ("notify", "preload")
    assert [slot["slot"] for slot in status["slots"]] == [0, 1]
    for slot in status["slots"]:
        [worker] = slot["workers"]
        assert (worker["pid"], worker["generation"]) == (pids[slot["slot"]], 1)
        assert (worker["state"], worker["addresses"]) == ("serving", [address])
        assert 0 <= worker["ready_for"] <= worker["age"] < GENEROUS
    assert {lane["slot"]: lane["pid"] for lane in status["lanes"]} == pids
    for lane in status["lanes"]:
        assert (lane["address"], lane["generation"], lane["live"]) == (address, 1, True)
        assert lane["queued"] == 0 and lane["backlog"] > 0


def test_status_counts_what_waits(running, path):
    for pid in running.pids().values():
        stop(pid)
    with contextlib.ExitStack() as held:
        for _ in range(8):
            held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
        status = status_of(running, path)
        assert sum(lane["queued"] for lane in status["lanes"]) == 8
    for pid in running.pids().values():
        os.kill(pid, signal.SIGCONT)


def test_status_as_a_table(running, path):
    code, out, err = ask("--control", path, "status")
    assert (code, err) == (0, [])
    assert out[0].startswith(f"master {running.process.pid}: recluster ")
    workers, lanes = "\n".join(out).split("\n\n")[1:]
    for text, head in ((workers, "state"), (lanes, "queued")):
        first, *rest = text.splitlines()
        assert head in first and len(rest) == 2
        # Aligned: each column begins, or ends, where its title does.
        for title in re.finditer(r"\S+( \S+)*", first):
            begin, end = title.span()
            for row in rest:
                fits_left = row[begin] != " " and (begin == 0 or row[begin - 1] == " ")
                fits_right = row[end - 1 : end].strip() and row[end : end + 1] in ("", " ")
                assert fits_left or fits_right, (title, row)
    assert {line.split()[2] for line in workers.splitlines()[1:]} == {
        str(pid) for pid in running.pids().values()
    }


def test_status_while_a_slot_is_empty(apps, path):
    options = ("--workers", 1, "--respawn", 60, "--backoff", 60, "--give-up", 0)
    with Running("--control", path, *options, "exits_at_once.py", cwd=apps) as running:
        running.wait_for("exit", code=7)
        [slot] = status_of(running, path)["slots"]
        assert [worker["pid"] for worker in slot["workers"]] in ([], [None])
        assert 0 < slot["next_try"] <= 80
        code, out, _ = ask("--control", path, "status")
        assert code == 0 and "no lanes" in out
        assert slot["workers"] or any("next try in" in line for line in out)


# ---- reload --------------------------------------------------------------------------


def test_reload_and_wait(running, path):
    code, out, err = ask("--control", path, running.process.pid, "reload", "--wait")
    assert (code, err, len(out)) == (0, [], 3)
    assert re.fullmatch(r"worker 0: ready after \d\.\d+ s", out[0])
    assert re.fullmatch(r"worker 1: ready after \d\.\d+ s", out[1])
    assert re.fullmatch(r"reload: generation 2 serves after \d\.\d+ s", out[2])
    assert running.wait_for("reload")["generation"] == 2
    assert status_of(running, path)["generation"] == 2


def test_reload_and_wait_for_machines(running, path):
    code, out, _ = ask("--control", path, "reload", "--wait", "--json")
    answer = json.loads(out[0])
    assert (code, answer["ok"], answer["generation"]) == (0, True, 2)
    assert answer["verdicts"].keys() == {"0", "1"}


def test_a_failed_reload(running, path, apps):
    edit(apps / "http_server.py", "VERSION =", "import no_such_module\nVERSION =")
    before = running.pids()
    code, out, err = ask("--control", path, "reload", "--wait")
    assert (code, err, len(out)) == (1, [], 3)
    assert [line.split(":")[0] for line in out] == ["worker 0", "worker 1", "reload failed"]
    assert re.search(r"worker [01] exited with code 1\b", out[2])
    status = status_of(running, path)
    if status["door"] == "notify":  # such workers are forked: they tell their error
        assert "ModuleNotFoundError" in out[2]
    assert status["generation"] == 1
    assert {s["slot"]: s["workers"][0]["pid"] for s in status["slots"]} == before


def test_reload_without_wait(running, path):
    code, out, err = ask("--control", path, "reload")
    assert (code, err, len(out)) == (0, [], 1)
    assert running.wait_for("reload")["ok"]


@pytest.fixture
def hanging(running, apps):
    """Its next reload does not end by itself."""
    replace(apps / "http_server.py", apps / "never_listens.py")
    return running


def test_the_master_is_killed_meanwhile(hanging, path):
    """And no worker holds the connection: the end is seen at once."""
    with asking("--control", path, "reload", "--wait") as process:
        hanging.wait_each("online", 2, generation=2)
        hanging.process.kill()
        code, out, err = ends(process)
    assert (code, out, len(err)) == (1, [], 1)
    assert "ended" in err[0]
    assert ask("--control", path, "status")[0] == 2


def test_the_master_shuts_down_meanwhile(hanging, path):
    with asking("--control", path, "reload", "--wait") as process:
        hanging.wait_each("online", 2, generation=2)
        hanging.signal(signal.SIGTERM)
        code, out, _ = ends(process)
    assert code == 1
    assert out[-1] == "reload failed: the cluster is shutting down"
    assert hanging.wait() == 0
    assert not os.path.lexists(path)


def test_a_superseded_reload_says_so(hanging, path):
    with asking("--control", path, "reload", "--wait") as process:
        hanging.wait_each("online", 2, generation=2)
        assert ask("--control", path, "reload")[0] == 0
        code, out, _ = ends(process)
    assert code == 1
    assert "superseded" in out[-1]


def test_status_during_a_reload(hanging, path):
    assert ask("--control", path, "reload")[0] == 0
    status = status_of(hanging, path)
    assert (status["generation"], status["reloading"]) == (1, 2)
    generations = [[w["generation"] for w in slot["workers"]] for slot in status["slots"]]
    assert generations == [[1, 2], [1, 2]]
    assert {lane["generation"] for lane in status["lanes"]} == {1}


def test_timeout_while_waiting(hanging, path):
    code, out, err = ask("--control", path, "reload", "--wait", "--timeout", "0.3")
    assert (code, out, len(err)) == (1, [], 1)
    assert "goes on" in err[0]
    assert status_of(hanging, path)["reloading"] == 2


def test_reload_during_shutdown_is_not_accepted(apps, path):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        with socket.create_connection(("127.0.0.1", running.port)) as held:
            held.sendall(b"GET / HT")  # owes an answer: keeps its worker, and so the master
            until(lambda: sum(lane["queued"] for lane in status_of(running, path)["lanes"]) == 0)
            for pid in running.pids().values():
                stop(pid)
            running.signal(signal.SIGTERM)
            assert status_of(running, path)["closing"]
            code, out, _ = ask("--control", path, "reload")
            assert (code, out[-1]) == (1, "reload failed: the cluster is shutting down")
            for pid in running.pids().values():
                os.kill(pid, signal.SIGCONT)


# ---- whom one cannot ask -------------------------------------------------------------


def one_line_of_usage(*words, **more):
    code, out, err = ask(*words, **more)
    assert (code, out, len(err)) == (2, [], 1), err
    assert err[0].startswith("recluster.ctl: ")
    return err[0]


@pytest.mark.parametrize(
    "words",
    [
        (), ("status",), ("1",), ("1", "frobnicate"), ("1", "status", "more"), ("0", "status"),
        ("1", "status", "--wait"), ("1", "reload", "--timeout", "soon"), ("--no-such-option",),
        ("1", "reload", "--timeout", "nan"), ("1", "reload", "--timeout", "0"),
    ],
)  # fmt: skip
def test_usage_errors(words):
    one_line_of_usage(*words)


def test_no_such_master(tmp_path, path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert "no such master" in one_line_of_usage(gone.pid, "status")
    assert "no such master" in one_line_of_usage(os.getpid(), "reload", "--wait")
    assert "no such master" in one_line_of_usage("--control", path, "status")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert "no such master" in one_line_of_usage("--control", path, "status")
    assert one_line_of_usage("--control", "x" * 200, "status")
    (tmp_path / "file").touch()
    assert one_line_of_usage("--control", tmp_path / "file", "status")


def test_another_master_than_the_one_meant(running, path):
    assert "belongs to" in one_line_of_usage("--control", path, os.getpid(), "reload")
    assert running.count("reload") == 0


@as_root
def test_not_permitted(apps):
    # The interpreter may be out of that user's reach: everything is imported before.
    code = f"""if True:
        import os, sys
        from recluster import ctl
        ctl._parse(["1", "status"])
        os.setgid({NOBODY}); os.setuid({NOBODY})
        sys.exit(ctl.main(sys.argv[1:]))
        """
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = f"{directory}/ctl.sock"
        with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as running:
            running.wait_each("ready", 2)
            for words in (["status"], ["reload", "--wait"], [str(running.process.pid), "reload"]):
                done = subprocess.run(
                    [sys.executable, "-c", code, "--control", path, *words],
                    env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                assert done.returncode == 2, done.stderr
                assert re.fullmatch(r"recluster.ctl: not permitted to ask .*\n", done.stderr)
            assert running.count("reload") == 0


def test_a_stopped_master(running, path):
    stop(running.process.pid)
    try:
        code, out, err = ask("--control", path, "status", "--timeout", "0.3")
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    assert (code, out, len(err)) == (1, [], 1)
    assert "did not answer" in err[0]
    assert status_of(running, path)["pid"] == running.process.pid


# ---- the socket ----------------------------------------------------------------------


def test_the_command_line_opens_it_at_its_usual_place(apps, tmp_path):
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with Running(*FAST, "http_server.py", "0", cwd=apps, env=env) as running:
        running.wait_each("ready", 2)
        directory = socketfile.default_directory(os.geteuid(), env)
        usual = f"{directory}/{running.process.pid}.sock"
        assert stat.S_IMODE(os.lstat(usual).st_mode) == 0o600
        assert os.lstat(usual).st_uid == os.geteuid()
        assert os.lstat(directory).st_mode & 0o022 == 0
        # The tool finds it by the PID alone, whatever its own environment.
        code, out, _ = ask(running.process.pid, "status", "--json")
        assert code == 0 and json.loads(out[0])["pid"] == running.process.pid
        assert running.end() == 0
        assert not os.path.lexists(usual)


@pytest.mark.parametrize("umask", [0, 0o077, 0o277])
def test_mode_0600_under_any_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        with socketfile.listen_at(str(tmp_path / "s")) as listener:
            assert listener.get_inheritable() is False
            mode = stat.S_IMODE(os.lstat(tmp_path / "s").st_mode)
    finally:
        os.umask(before)
    assert mode == 0o600 & ~umask
    assert os.listdir(tmp_path) == ["s"]


def test_none_switches_it_off(apps, tmp_path):
    with Running("--control", "none", *FAST, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert "no such master" in one_line_of_usage(running.process.pid, "status")


@pytest.mark.parametrize("option", ["", ", control='ctl.sock'"])
def test_the_library_opens_one_only_when_asked(option, apps):
    text = f"""
        import os, recluster
        from recluster import ctl
        cluster = recluster.Cluster("http_server.py", args=["0"], workers=1{option})
        with cluster:
            print(ctl.main(["--control", "ctl.sock", "reload", "--timeout", "0.2"])
                  if not {bool(option)} else os.path.exists("ctl.sock"))
        print(os.path.exists("ctl.sock"))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        cwd=apps, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == (["True", "False"] if option else ["2", "False"]), done.stderr


def test_a_dead_masters_file_is_replaced(apps, path):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as first:
        first.wait_each("ready", 2)
        first.process.kill()
        first.wait()
    assert os.path.lexists(path)
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as second:
        second.wait_each("ready", 2)
        assert status_of(second, path)["pid"] == second.process.pid
        assert second.end() == 0
    assert [name for name in os.listdir(os.path.dirname(path)) if "sock" in name] == []


def test_a_living_masters_file_is_not(running, path, apps):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as second:
        assert second.wait() == 1
        assert second.log() == [f"recluster: control: {path} is in use by another master"]
        assert second.count("online") == 0
    assert status_of(running, path)["pid"] == running.process.pid


def test_another_file_is_not_replaced(apps, path):
    with open(path, "w") as file:
        file.write("precious")
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as running:
        assert running.wait() == 1
        assert "is not a socket" in running.stderr()
    with open(path) as file:
        assert file.read() == "precious"


@pytest.mark.parametrize("wrong", ["no/such/folder/ctl.sock", "x" * 150])
def test_a_path_that_cannot_be(wrong, apps):
    with Running("--control", wrong, *FAST, "http_server.py", "0", cwd=apps) as running:
        assert running.wait() == 1
        assert len(running.stderr().splitlines()) == 1 and "control: " in running.stderr()


def test_at_the_end_only_its_own_file_goes(running, path):
    os.rename(path, path + ".old")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        assert running.end() == 0
    assert os.path.lexists(path)


def test_a_file_that_came_in_the_meantime_stays(tmp_path, monkeypatch):
    """Two masters find the same dead socket; the slower one gives way."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    looks, other = socketfile._dead_socket, []

    def slow(there):
        found = looks(there)
        monkeypatch.setattr(socketfile, "_dead_socket", looks)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        other.append(socketfile.listen_at(path))
        return found

    monkeypatch.setattr(socketfile, "_dead_socket", slow)
    with pytest.raises(socketfile.Refused, match="in use by another master"):
        socketfile.listen_at(path)
    with connect(path), other[0] as faster:
        faster.accept()[0].close()
    assert os.listdir(tmp_path) == ["s"]


def test_the_usual_place(tmp_path):
    usual = socketfile.default_directory
    me = os.geteuid()
    assert usual(0, {"XDG_RUNTIME_DIR": str(tmp_path)}) == "/run/recluster"
    assert usual(12345, {}) == "/tmp/recluster-12345"
    assert usual(12345, {"XDG_RUNTIME_DIR": str(tmp_path)}) == "/tmp/recluster-12345"
    assert usual(12345, {"XDG_RUNTIME_DIR": "relative"}) == "/tmp/recluster-12345"
    if me:
        assert usual(me, {"XDG_RUNTIME_DIR": str(tmp_path)}) == f"{tmp_path}/recluster"


def test_the_directory(tmp_path):
    fresh = tmp_path / "fresh"
    socketfile.make_directory(str(fresh))
    socketfile.make_directory(str(fresh))
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    fresh.chmod(0o770)
    with pytest.raises(socketfile.Refused, match="others may write"):
        socketfile.make_directory(str(fresh))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(socketfile.Refused, match="not a directory"):
        socketfile.make_directory(str(tmp_path / "link"))


@as_root
def test_the_directory_of_another_user(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(socketfile.Refused, match="belongs to another user"):
        socketfile.make_directory(str(theirs))


# ---- clients that are slow, rude or many ---------------------------------------------


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (b"\n", "JSON"), (b"reload\n", "JSON"), (b"\xff\xfe\n", "JSON"),
        (b"[" * 4000 + b"\n", "JSON"),
        (b"[]\n", "unknown command"), (b'{"cmd":"frob"}\n', "unknown command"),
        (b'{"cmd":["status"]}\n', "unknown command"), (b"x" * 4097, "4096"),
        (b'{"cmd":"status"' + b" " * 8192 + b"}\n", "4096"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered(request_, word, running, path):
    answer = raw(path, request_)
    assert answer["ok"] is False and word in answer["error"]
    assert raw(path, b'{"cmd": "status"}\n')["ok"]


def test_the_longest_request(running, path):
    assert raw(path, b'{"cmd":"status"' + b" " * (4096 - 16) + b"}\n")["ok"]


def test_a_request_in_pieces(running, path):
    with connect(path) as slow:
        for byte in b'{"cmd": "status"}\n':
            assert status_of(running, path)["generation"] == 1
            slow.sendall(bytes([byte]))
        assert json.loads(slow.makefile().readline())["ok"]


def test_one_request_per_connection(running, path):
    with connect(path) as client:
        client.sendall(b'{"cmd": "status"}\n{"cmd": "reload"}\n')
        with contextlib.suppress(ConnectionResetError):
            assert client.makefile().read().count("\n") == 1
    assert status_of(running, path)["generation"] == 1
    assert running.count("reload") == 0


def test_a_half_closed_client_gets_its_answer(running, path):
    with connect(path) as client:
        client.sendall(b'{"cmd": "reload", "wait": true}\n')
        client.shutdown(socket.SHUT_WR)
        assert json.loads(client.makefile().readline())["ok"]


def links(pid):
    """What the descriptors of a process are."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sorted(found)


def test_clients_that_say_nothing_make_room(running, path):
    before = len(links(running.process.pid))
    with contextlib.ExitStack() as idle:
        clients = [idle.enter_context(connect(path)) for _ in range(60)]
        assert status_of(running, path)["pid"] == running.process.pid
        assert len(links(running.process.pid)) <= before + 16
        # Those that had to go were told why.
        assert json.loads(clients[0].makefile().readline())["busy"]
    until(lambda: len(links(running.process.pid)) == before)


def test_those_that_wait_are_not_pushed_out(hanging, path):
    with contextlib.ExitStack() as held_open:
        waiting = [held_open.enter_context(connect(path)) for _ in range(16)]
        for client in waiting:
            client.sendall(b'{"cmd": "reload", "wait": true}\n')
        # Each supersedes the one before, which is told so and makes room.
        for client in waiting[:-1]:
            assert "superseded" in json.loads(client.makefile().readline())["why"]
        assert status_of(hanging, path)["reloading"] == 17
        hanging.signal(signal.SIGTERM)
        assert "shutting down" in json.loads(waiting[-1].makefile().readline())["why"]


def test_a_client_that_hangs_up_while_it_waits(hanging, path):
    before = len(links(hanging.process.pid))
    with contextlib.ExitStack() as held_open:
        clients = [held_open.enter_context(connect(path)) for _ in range(3)]
        clients[0].sendall(b'{"cmd": "reload", "wait": true}\n')
        hanging.wait_each("online", 2, generation=2)
    hanging.signal(signal.SIGUSR2)  # ends the reload that nobody waits for any more
    assert "superseded" in hanging.wait_for("reload")["why"]
    hanging.wait_each("exit", 2, generation=2)
    hanging.wait_each("online", 2, generation=3)
    # Two more workers run now than before; a client would be one descriptor more.
    once = len(links(hanging.process.pid))
    with connect(path) as client:
        client.sendall(b'{"cmd": "status"}\n')
        assert json.loads(client.makefile().readline())["ok"]
        until(lambda: len(links(hanging.process.pid)) == once)
    assert once > before


def test_many_tools_at_once(running, path):
    with contextlib.ExitStack() as all_of_them:
        tools = [all_of_them.enter_context(asking("--control", path, "status")) for _ in range(30)]
        assert [ends(tool)[0] for tool in tools] == [0] * 30


def test_forked_workers_hold_nothing_of_it(running, path):
    with connect(path) as idle:
        idle.sendall(b'{"cmd"')
        assert ask("--control", path, "reload", "--wait")[0] == 0
        masters = {link for link in links(running.process.pid) if "socket" in link}
        for pid in running.pids().values():
            theirs = set(links(pid))
            # What they share with the master is their own lanes and channels.
            shared = masters & theirs
            assert len(shared) <= 1, (masters, theirs)
            assert not any("eventpoll" in link for link in theirs)


def test_asking_leaves_nothing_behind(running, path):
    before = links(running.process.pid)
    for _ in range(20):
        assert raw(path, b'{"cmd": "status"}\n')["ok"]
        raw(path, b"nonsense\n")
        connect(path).close()
    until(lambda: links(running.process.pid) == before)


# ---- a server alone ------------------------------------------------------------------


class Loop:
    """What a Control needs of a cluster, and the loop that drives it."""

    def __init__(self, path):
        self.options = Options.make({"control": path}, {})
        self._watched = {}
        self.control = open_control(self, print)

    def watch(self, fd, callback):
        self._watched[fd] = callback

    def unwatch(self, fd):
        del self._watched[fd]

    def turn(self, timeout=GENEROUS):
        """Whatever is to be done now; False if there was nothing."""
        ready = select.select(list(self._watched), [], [], timeout)[0]
        for fd in ready:
            self._watched[fd]()
        return bool(ready)


@pytest.fixture
def loop(path):
    made = Loop(path)
    yield made
    made.control.close()
    assert not os.path.lexists(path)


def test_an_answer_larger_than_a_buffer(loop, path, monkeypatch):
    """It waits for its client; the master waits for nobody."""
    large = {"text": "x" * 3_000_000}
    monkeypatch.setattr(control, "status_of", lambda cluster: large)
    with connect(path) as lazy, connect(path) as eager, connect(path) as gone:
        for client in (lazy, eager, gone):
            client.sendall(b'{"cmd": "status"}\n')
        while loop.turn(0):
            pass
        gone.close()
        data = b""
        while not data.endswith(b"\n"):
            if not loop.turn(0):
                data += eager.recv(1 << 16)
        assert json.loads(data)["status"] == large
        assert lazy.recv(10) == b'{"ok":true'
        while loop.turn(0):
            pass
        assert len(loop.control._clients) == 1


def test_without_descriptors_it_neither_spins_nor_forgets(loop, path):
    with contextlib.ExitStack() as clients:
        first, second = (clients.enter_context(connect(path)) for _ in range(2))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            with socket.socket(socket.AF_UNIX):  # the last descriptor
                first.sendall(b'{"cmd": "nothing"}\n')
                second.sendall(b'{"cmd": "nothing"}\n')
                assert loop.turn()
                assert not loop.turn(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        connect(path).close()
        while loop.turn(0):
            pass
        for client in (first, second):
            assert "unknown command" in client.recv(200).decode()


def test_a_question_that_goes_wrong_is_answered(loop, path, monkeypatch):
    def broken(cluster):
        raise LookupError("of status")

    monkeypatch.setattr(control, "status_of", broken)
    with connect(path) as client:
        client.sendall(b'{"cmd": "status"}\n')
        while loop.turn(0):
            pass
        assert json.loads(client.recv(200))["error"] == "status: LookupError: of status"


# ---- the tool's words ----------------------------------------------------------------


def test_spans():
    shown = [ctl._span(value) for value in (None, 0.04, 59.94, 60, 3599, 3600, 90061, 864000)]
    assert shown == ["-", "0.0s", "59.9s", "1m00s", "59m59s", "1h00m", "1d01h", "10d00h"]


def test_control_characters_of_an_error_do_not_reach_the_terminal():
    answer = {"ok": False, "why": "a\x1b[31m\nb", "verdicts": {"10": "x\ny", "9": "z"}}
    assert ctl.verdict_lines(answer) == ["worker 9: z", "worker 10: x y", "reload failed: a?[31m b"]
