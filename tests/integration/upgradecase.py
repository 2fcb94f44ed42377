"""Masters that are upgraded, and the version that comes: a copy of the package in a folder that
stands in for site-packages, in which a test puts another in the place of the first."""

import contextlib
import json
import os
import shutil
import socket
from pathlib import Path

from ctlcase import FAST
from harness import ENVIRONMENT, GENEROUS, Running, until

import recluster
from recluster.control.places import likely_paths

PACKAGE = Path(recluster.__file__).parent
NEXT = "99.0"


class Installed:
    """`folder` is what PYTHONPATH names; `change` what an installer would do to it."""

    def __init__(self, folder):
        self.folder = folder
        leave_out = shutil.ignore_patterns("__pycache__", "*.c")
        shutil.copytree(PACKAGE, folder / "recluster", ignore=leave_out)
        self.env = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def change(self, name, old, new):
        path = self.folder / "recluster" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def next_version(self):
        path = self.folder / "recluster" / "__init__.py"
        path.write_text(f"{path.read_text()}\n__version__ = {NEXT!r}\n")

    def held(self, fifo):
        """The next master waits for the other end of that FIFO before it takes over."""
        self.change(
            "master/succeeding.py",
            '    """Workers and lanes, which',
            f'    open({str(fifo)!r}).read()\n    """Workers and lanes, which',
        )


def start(apps, *options, target=("http_server.py", "0"), workers=2, env=None, **more):
    words = (*FAST, "--workers", workers, *options, *target)
    return Running(*words, cwd=apps, env=env, **more)


def socket_of(pid):
    return next(path for path in likely_paths(pid, ENVIRONMENT) if os.path.exists(path))


@contextlib.contextmanager
def asked(pid):
    """A request for an upgrade, under way; yields what waits for the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GENEROUS)
        connection.connect(socket_of(pid))
        connection.sendall(b'{"cmd": "upgrade"}\n')
        yield lambda: json.loads(connection.makefile().readline())


def upgrade(running):
    """Done when all that comes after it is the new version's."""
    with asked(running.process.pid) as answer:
        said = answer()
    assert said["ok"], said
    return running.wait_for("upgraded")


def refused(running):
    with asked(running.process.pid) as answer:
        said = answer()
    assert not said["ok"], said
    return said["error"]


def opened(fifo):
    """Wait until somebody opens it for reading; closing that lets it go."""

    def look():
        with contextlib.suppress(OSError):  # ENXIO: nobody does
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)

    return until(look)


def flow(port):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(GENEROUS)
    made.connect(("127.0.0.1", port))
    return made


def told(client):
    """The pid of who answers."""
    client.send(b"who")
    return json.loads(client.recv(999))["pid"]
