"""A root master, workers of another user, and AF_UNIX paths: what that user could not do
itself is not done for it."""

import errno
import os
import shutil
import socket
import stat
import struct
import tempfile

import pytest
from clients import GENEROUS
from harness import Running, until
from test_unix import get_unix

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="wants another user, so root")

# Imported before: what the interpreter has may be root's alone.
DROP = "import contextlib, json, os, socket, sys, time; from recluster import worker\n"
DROP += "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
SERVE = """
import contextlib, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
def bind(path=sys.argv[1]):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass
    server.bind(path)
def serve():
    server.listen()
    while True:
        connection, _ = server.accept()
        connection.recv(9999)
        body = json.dumps({"worker": os.environ["WORKER_ID"], "uid": os.getuid()}).encode()
        head = b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        with contextlib.suppress(OSError):  # one that only looked
            connection.sendall(head + body)
        connection.close()
"""


@pytest.fixture
def place():
    """A folder that anybody may enter, with `run` of nobody's and `root`, 0700, of root's."""
    folder = tempfile.mkdtemp(prefix="recluster-rights-")
    os.chmod(folder, 0o755)
    for name, mode, owner in ("run", 0o755, NOBODY), ("root", 0o700, 0):
        os.mkdir(os.path.join(folder, name), mode)
        os.chown(os.path.join(folder, name), owner, owner)
    yield folder
    shutil.rmtree(folder)


def program(tmp_path, text):
    path = tmp_path / "server.py"
    path.write_text(text)
    return path


def peer_of(path):
    """Who listens there, as the kernel tells a client: (pid, uid, gid)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(GENEROUS)
        client.connect(path)
        return struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))


# Makes of whatever appears beside the path a link to a file of root's.
ATTACK = """
import contextlib, os, sys
folder, secret = os.path.dirname(sys.argv[1]), sys.argv[2]
ours = os.path.join(folder, "mine")
if os.environ["WORKER_ID"] == "0" and os.fork() == 0:
    while True:
        for name in os.listdir(folder):
            if "recluster" not in name:
                continue
            with contextlib.suppress(OSError):
                os.unlink(ours)
            with contextlib.suppress(OSError):
                os.symlink(secret, ours)
                os.rename(ours, os.path.join(folder, name))
            with contextlib.suppress(OSError):
                open(ours, "w").close()
                os.chmod(ours, 0o4777)
                os.rename(ours, os.path.join(folder, "app.sock"))
"""


def test_a_file_of_root_s_is_not_changed_by_way_of_a_link(place, tmp_path):
    secret, path = os.path.join(place, "root", "secret"), os.path.join(place, "run", "app.sock")
    with open(secret, "w"):
        os.chmod(secret, 0o600)
    code = DROP + ATTACK + SERVE + "bind(); serve()"
    args = ("--workers", 2, "--timeout", 5, program(tmp_path, code), path, secret)
    with Running(*args, cwd=place) as running:
        running.wait_each("ready", 2)
        assert running.reload()["ok"]
        assert get_unix(path)["uid"] == NOBODY
        assert running.end() == 0
    facts = os.stat(secret)
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o600)


# Worker 1 expects a folder of the master's beside the path, and makes it first.
LURE = """
import time
from recluster import worker
path, target = sys.argv[1:]
folder, base = os.path.split(path)
if worker.id == 1:
    while not os.path.exists(path):
        time.sleep(0.01)
    for number in range(9):
        inside = os.path.join(folder, f".{base}.recluster-{number}-d", os.path.dirname(folder)[1:])
        os.makedirs(inside, exist_ok=True)
        if not os.path.lexists(os.path.join(inside, os.path.basename(folder))):
            os.symlink(target, os.path.join(inside, os.path.basename(folder)))
    server.bind(path)
else:
    bind()
worker.send({"bound": worker.id})
serve()
"""


def test_a_file_in_a_folder_of_root_s_is_not_moved(place, tmp_path):
    secret, path = os.path.join(place, "root", "passwd"), os.path.join(place, "run", "passwd")
    open(secret, "w").close()
    args = ("--workers", 2, program(tmp_path, DROP + SERVE + LURE), path, os.path.dirname(secret))
    with Running(*args, cwd=place) as running:
        running.wait_each("ready", 2)
        assert os.listdir(os.path.dirname(secret)) == ["passwd"]
        assert get_unix(path)["uid"] == NOBODY
    assert os.listdir(os.path.dirname(secret)) == ["passwd"]


# Worker 0 keeps root's rights and serves in root's folder.
TRIES = """
from recluster import worker
if worker.id:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    told = {}
    for what, call in {"there": os.unlink, "absent": os.unlink, "app.sock": os.unlink,
                       "bind": lambda path: socket.socket(socket.AF_UNIX).bind(path)}.items():
        try:
            call(os.path.join(sys.argv[2], "app.sock" if what == "bind" else what))
            told[what] = 0
        except OSError as error:
            told[what] = error.errno
    worker.send(told)
    bind(sys.argv[1] + "2")
else:
    bind(os.path.join(sys.argv[2], "app.sock"))
serve()
"""


def test_what_is_in_a_folder_of_root_s_is_not_told(place, tmp_path):
    """Nor is the socket given that a sibling has there."""
    folder, path = os.path.join(place, "root"), os.path.join(place, "run", "app.sock")
    open(os.path.join(folder, "there"), "w").close()
    tries = SERVE + TRIES.replace("if worker.id:", "if worker.id:\n    wait()", 1)
    wait = "import time\ndef wait():\n    while not os.path.exists(sys.argv[2] + '/app.sock'):\n"
    wait += "        time.sleep(0.01)\n"
    with Running(
        "--workers", 2, program(tmp_path, wait + tries), path, folder, cwd=place
    ) as running:
        told = running.wait_for("message", slot=1)["message"]
        assert told == dict.fromkeys(("there", "absent", "app.sock", "bind"), errno.EACCES)
        running.wait_each("ready", 2)
        assert get_unix(os.path.join(folder, "app.sock"))["uid"] == 0
        assert get_unix(path + "2")["uid"] == NOBODY
    assert "there" in os.listdir(folder)


@pytest.mark.parametrize("when", ["before the bind", "between bind and listen"])
def test_who_drops_its_rights_shares_the_path(place, tmp_path, when):
    path = os.path.join(place, "run", "app.sock")
    steps = (
        ["bind()", DROP, "serve()"] if when.startswith("between") else [DROP, "bind()", "serve()"]
    )
    args = ("--workers", 2, "--timeout", 5, program(tmp_path, SERVE + "\n".join(steps)), path)
    with Running(*args, cwd=place) as running:
        pids = {one["pid"] for one in running.wait_each("ready", 2).values()}
        pid, *ids = peer_of(path)
        assert ids == [NOBODY, NOBODY] and pid in pids  # not the master's, whose rights it has not
        inode = os.stat(path).st_ino
        assert running.reload()["ok"] and os.stat(path).st_ino == inode
        for slot in 0, 1:
            running.wait_for("exit", slot=slot, generation=1)
        until(lambda: {get_unix(path)["worker"] for _ in range(20)} == {"0", "1"})
