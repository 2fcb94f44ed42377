"""As PID 1 of a container: a root that cannot be written, no /tmp, no /run, another user."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clients import get
from ctlcase import as_root
from harness import ENVIRONMENT, GENEROUS, Pidfd, descendants, edit, free_port, until
from namespaces import open_the_way

import recluster

pytestmark = [
    as_root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("unshare", "nsenter", "setpriv"))),
        reason="util-linux is not installed",
    ),
]
UNSHARED = ("unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc")
HIDDEN = ("/run", "/tmp", "/var/tmp", "/dev/shm")
KEPT = {sys.prefix, str(Path(recluster.__file__).parents[1])}  # CI's lie below /tmp
ORPHANS = """
import os, sys
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)  # after its parent, or before: PID 1's in any case
        os._exit(0)
"""


def hide():
    """The folders that a small image has not; what runs here is put back where it was."""
    kept = {folder: f"/mnt/{number}" for number, folder in enumerate(sorted(KEPT))}
    yield "mount -t tmpfs none /mnt"
    for folder, aside in kept.items():
        yield f"mkdir {aside}; mount --bind {folder} {aside}"
    for one in filter(os.path.isdir, HIDDEN):
        yield f"mount -t tmpfs -o mode=755 none {one}"
        for folder, aside in kept.items():
            if folder.startswith(f"{one}/"):
                yield f"mkdir -p {folder}; mount --bind {aside} {folder}"
        yield f"mount -o remount,ro {one}"
    yield "umount -l /mnt"


class Container:
    """Its own mounts and pids; `self.pid` is PID 1 out here. (No events: they tell pids of
    inside.)"""

    def __init__(self, apps, *words, uid=None, env=(), before=""):
        self.log = apps.parent / "log"
        user = f"setpriv --reuid {uid} --regid {uid} --clear-groups" if uid else ""
        script = (
            f"set -e; mount --bind {apps} /srv; mount -o remount,ro,bind /srv;"
            f"{'; '.join(hide())}; {before} mount -o remount,ro,bind /; cd /srv;"
            f'exec {user} {sys.executable} -m recluster "$@"'
        )
        everything = {key: value for key, value in ENVIRONMENT.items() if key != "HOME"}
        everything.pop("RECLUSTER_RUN_DIRECTORY")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*UNSHARED, "sh", "-c", script, "sh", *map(str, words)],
                env={**everything, **dict(env)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=open_the_way if uid else None,  # noqa: PLW1509
            )
        self.pidfd = Pidfd(self.process.pid)
        self.pid = until(lambda: [*descendants(self.process.pid), 0][0])
        self.first = Pidfd(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        """PID 1 by itself: who changes its user loses the parent's death signal. With it all go."""
        self.first.signal(signal.SIGKILL)
        assert self.first.is_dead(GENEROUS)
        self.process.kill()
        self.process.wait()
        self.pidfd.close()
        self.first.close()

    def lines(self):
        return self.log.read_text().splitlines()

    def serves(self, port):
        def answer():
            assert not self.pidfd.is_dead(), self.log.read_text()
            with contextlib.suppress(OSError):
                return get(port)

        return until(answer)

    def inside(self, *words, uid, env=()):
        """As a probe is: by the container's user."""
        target = ["nsenter", "-t", str(self.pid), "-m", "-p"]
        target += ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        return subprocess.run(
            [*target, sys.executable, "-m", "recluster", *words],
            env={**ENVIRONMENT, **dict(env)},
            capture_output=True,
            text=True,
            timeout=GENEROUS,
        )

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        assert self.pidfd.is_dead(GENEROUS), self.log.read_text()
        return self.process.wait()


@pytest.mark.parametrize("uid", [None, 12345])
@pytest.mark.parametrize("door", ["notify", "preload"])
def test_it_works_with_one_line_for_what_is_missing(apps, uid, door):
    port = free_port()
    words = ("-w", 2, "--door", door, "--balance", "reuseport", "http_server.py", port)
    with Container(apps, *words, uid=uid) as container:
        assert container.serves(port)["version"] == "1"
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        os.kill(container.pid, signal.SIGUSR2)
        until(lambda: get(port)["version"] == "2")
        missing = [line for line in container.lines() if "WARNING" in line]
        assert len(missing) == 1
        assert "no control socket: " in missing[0]
        assert "Read-only file system" in missing[0] or "No such file" in missing[0]
        assert "Traceback" not in container.log.read_text()
        assert container.end() == 0


def test_strays_are_reaped(apps):
    port = free_port()
    program = apps / "orphans.py"
    program.write_text(ORPHANS + (apps / "http_server.py").read_text())
    with Container(apps, "-w", 2, "orphans.py", port) as container:
        container.serves(port)

        def states():
            found = []
            for pid in descendants(container.pid):
                with contextlib.suppress(OSError):
                    found.append(
                        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
                    )
            return found

        until(lambda: ["Z", str(container.pid)] not in states())
        assert container.end() == 0


def test_where_there_is_a_folder_for_it_probes_find_it(apps):
    """As `recluster init kubernetes` has it: a volume that belongs to root, and any may write."""
    port = free_port()
    env = {"RECLUSTER_RUN_DIRECTORY": "/run/own"}
    before = "mount -t tmpfs -o mode=1777 none /run;"
    words = ("-w", 1, "http_server.py", port)
    with Container(apps, *words, uid=12345, env=env, before=before) as container:
        container.serves(port)
        asked = container.inside("health", uid=12345, env=env)
        assert asked.returncode == 0, asked
        assert not [line for line in container.lines() if "WARNING" in line]
        assert container.end() == 0
