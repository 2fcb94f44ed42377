"""AF_UNIX listeners in the service manager's store: who waits at a name is answered by the workers
of the next master, and a name that has gone to somebody else meanwhile is not taken from him."""

import os
import socket

import pytest
from clients import GENEROUS, Broken, get_unix, read_answer, send_request
from ctlcase import as_root
from harness import edit, stop, until
from storecase import Store, killed, start
from test_inherited import Activated


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "notify")) as made:
        yield made


@pytest.fixture(params=["path", "relative", "abstract"])
def name(request, tmp_path, apps):
    """As a program says it, and as a client does."""
    if request.param == "abstract":
        said = f"\0recluster-store-{os.getpid()}"
        edit(apps / "unix_asyncio.py", "sys.argv[1])", f"{said!r})")
        return "unused", said
    if request.param == "relative":
        return "app.socket", str(apps / "app.socket")
    return (str(tmp_path / "app.socket"),) * 2


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "app.socket")


def waits(address, count):
    made = []
    for _ in range(count):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(GENEROUS)
        one.connect(address)
        send_request(one)
        made.append(one)
    return made


def stop_all(running):
    for pid in running.pids().values():
        stop(pid)


def newer(apps, before="1"):
    edit(apps / "unix_asyncio.py", f'VERSION = "{before}"', f'VERSION = "{int(before) + 1}"')


def test_who_waits_is_answered_by_the_next_master(apps, store, name):
    said, address = name
    args = ("--workers", 2, "--timeout", 10, "unix_asyncio.py", said)
    with start(store, *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        store.holds(1)
        stop_all(running)
        waiting = waits(address, 6)
        killed(running)
    waiting += waits(address, 6)  # nobody is there, and nobody is refused
    newer(apps)
    with store.next_master(*args, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert {read_answer(one)["version"] for one in waiting} == {"2"}
        assert {lane["address"] for lane in running.status()["lanes"]} == {
            f"unix:{said}" if said != "unused" else f"unix:@{address[1:]}"
        }
        newer(apps, before="2")  # a lane like any other from now on
        assert running.reload()["ok"]
        for slot in range(2):
            running.wait_for("exit", slot=slot, generation=1)
        assert {get_unix(address)["version"] for _ in range(20)} == {"3"}
        store.status("generation 2, 2 of 2 ready")  # its queue is short, so it is read here
        assert len(store.fds) == 1
        assert running.end() == 0
        store.holds(0)


def test_twice(apps, store, path):
    """What is noted with it in the store is true of the next master's lane too."""
    args = ("--workers", 1, "--timeout", 10, "unix_socketserver.py", path)
    with start(store, *args, cwd=apps) as running:
        running.wait_for("ready")
        store.holds(1)
        killed(running)
    for _ in range(2):
        waiting = waits(path, 3)
        with store.next_master(*args, cwd=apps) as running:
            running.wait_for("ready")
            assert len([read_answer(one) for one in waiting]) == 3
            killed(running)
    assert len(store.fds) == 1


BINDS = """
import errno, os, signal, socket, sys
if sys.argv[2:] == ["drops"]:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
try:
    listener.bind("\\0" + sys.argv[1])
except OSError as error:
    sys.exit(40 if error.errno == errno.EADDRINUSE else 41)
listener.listen()
while True:
    connection = listener.accept()[0]
    connection.send(b"yes")
    connection.close()
"""


@as_root
def test_whoever_has_other_rights_does_not_get_it(store, tmp_path):
    """The kernel would not let him have the name; he gets no queue of root's by asking."""
    (tmp_path / "binds.py").write_text(BINDS)
    said = f"recluster-store-{os.getpid()}"
    args = ("--workers", 1, "--timeout", 10, "binds.py", said)
    with start(store, *args, cwd=tmp_path) as running:
        running.wait_for("ready")
        store.holds(1)
        killed(running)
    with store.next_master(*args, "drops", cwd=tmp_path) as running:
        assert running.wait_for("exit")["code"] == 40
        killed(running)
    with store.next_master(*args, cwd=tmp_path) as running:
        running.wait_for("ready")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"\0{said}")
            assert client.recv(9) == b"yes"
        assert running.end() == 0


def test_a_path_that_is_anothers_now_is_left_to_him(apps, store, path):
    args = ("--workers", 1, "--timeout", 10, "unix_socketserver.py", path)
    with start(store, *args, cwd=apps) as running:
        running.wait_for("ready")
        store.holds(1)
        stop_all(running)
        (lost,) = waits(path, 1)
        killed(running)
    os.remove(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with store.next_master(*args, cwd=apps) as running:
            assert running.wait_for("exit")["code"] == 1  # EADDRINUSE
            store.holds(0)  # in it nobody can be served
            assert running.end() == 0
        with pytest.raises(ConnectionResetError):
            lost.recv(1)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        other.accept()[0].close()
        client.close()


def test_a_path_that_has_gone_is_bound_anew(apps, store, path):
    args = ("--workers", 1, "--timeout", 10, "unix_asyncio.py", path)
    with start(store, *args, cwd=apps) as running:
        running.wait_for("ready")
        store.holds(1)
        killed(running)
    os.remove(path)
    with store.next_master(*args, cwd=apps) as running:
        running.wait_for("ready")
        assert get_unix(path)["version"] == "1"
        (old,) = store.fds
        until(lambda: store.receive() and old not in store.fds)
        store.holds(1)
        assert running.end() == 0


def test_what_no_worker_wants_any_more_is_refused(apps, store, path):
    with start(store, "--workers", 1, "unix_socketserver.py", path, cwd=apps) as running:
        running.wait_for("ready")
        store.holds(1)
        stop_all(running)
        (waiting,) = waits(path, 1)
        killed(running)
    args = ("--workers", 1, "unix_socketserver.py", f"{path}2")
    with store.next_master(*args, cwd=apps) as running:
        told = running.wait_for("unclaimed")
        assert told["address"] == f"unix:{path}"
        with pytest.raises(Broken, match="reset"):
            read_answer(waiting)
        assert get_unix(f"{path}2")["version"] == "1"
        assert running.end() == 0


def test_of_bind(apps, store, path):
    """It is not bound again, which would be refused, and goes with the master as ever."""
    args = ("--workers", 2, "--timeout", 10, "--bind", f"unix:{path}")
    args = (*args, "unix_socketserver.py", path)
    with start(store, *args, cwd=apps) as running:
        running.wait_each("ready", 2)
        store.holds(1)
        stop_all(running)
        waiting = waits(path, 4)
        killed(running)
    with store.next_master(*args, cwd=apps) as running:
        running.wait_each("ready", 2)
        assert len([read_answer(one) for one in waiting]) == 4
        assert running.end() == 0
    assert not os.path.exists(path)


def test_systemds_own_is_not_kept(apps, store, path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen()
        args = ("--workers", 1, "unix_socketserver.py", path)
        with Activated([made], *args, cwd=apps, env=store.env(FDSTORE="64")) as running:
            running.wait_for("ready")
            store.has("READY")
            assert get_unix(path)["version"] == "1"
            assert running.end() == 0
            store.has("STOPPING")
    assert not store.fds


def test_what_the_next_master_can_make_no_use_of_is_taken_out(apps, store, path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{path}2")
        made.listen()
        store.fds["recluster-lane-7-of-another-version"] = os.dup(made.fileno())
    args = ("--workers", 1, "unix_socketserver.py", path)
    with store.next_master(*args, cwd=apps) as running:
        running.wait_for("ready")
        store.until(lambda message: "FDSTOREREMOVE" in message)
        assert "recluster-lane-7-of-another-version" not in store.fds
        assert running.end() == 0
