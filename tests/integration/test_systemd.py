"""The unit of `recluster init systemd` under the real systemd: a user manager of our own, in
namespaces of its own, so that nothing of it is left."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from clients import GENEROUS, get, read_answer, send_request
from ctlcase import as_root
from harness import ENVIRONMENT, Pidfd, descendants, edit, free_port, stop, until
from test_init import init

SYSTEMD = "/lib/systemd/systemd"
GROUPS = Path("/sys/fs/cgroup/systemd")
INSIDE = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user/0 && "
    f"{SYSTEMD} --user --log-target=console & wait"
)
pytestmark = [
    as_root,
    pytest.mark.skipif(
        not (os.path.exists(SYSTEMD) and shutil.which("systemctl") and shutil.which("unshare")),
        reason="systemd is not installed",
    ),
]


class UserManager:
    def __init__(self, folder):
        self.units = folder / "config" / "systemd" / "user"
        self.units.mkdir(parents=True)
        self.log = folder / "systemd.log"
        env = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("RECLUSTER")}
        self.env = {
            **env,
            "XDG_RUNTIME_DIR": "/run/user/0",
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "data"),
        }
        words = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*words, "--propagation", "private", "sh", "-c", INSIDE],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pidfd = Pidfd(self.process.pid)
        self.inside = until(lambda: [*descendants(self.process.pid), 0][0])

    def is_up(self):
        assert not self.pidfd.is_dead(), self.log.read_text()
        return self.ctl("list-units", code=None).returncode == 0

    def ctl(self, *words, code=0):
        done = subprocess.run(
            ["nsenter", "-t", str(self.inside), "-m", "-p", "systemctl", "--user", *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * GENEROUS,
        )
        assert code is None or done.returncode == code, (done, self.log.read_text()[-3000:])
        return done

    def show(self, name):
        return self.ctl("show", "-P", name, "web").stdout.strip()

    def master(self):
        """Its pid out here."""
        inner = self.show("MainPID")
        for pid in descendants(self.process.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            (line,) = [one for one in status.splitlines() if one.startswith("NSpid:")]
            if line.split()[-1] == inner:
                return pid
        return None

    def end(self):
        first = Pidfd(self.inside)  # with PID 1 all of them go
        first.signal(signal.SIGKILL)
        assert first.is_dead(GENEROUS)
        first.close()
        self.process.kill()
        self.process.wait()
        self.pidfd.close()
        for group in ("app.slice", "init.scope"):  # what it made; those in use stay
            for folder in sorted(GROUPS.glob(f"{group}/**/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()


@pytest.fixture
def manager(tmp_path):
    made = UserManager(tmp_path)
    try:
        until(made.is_up)
        yield made
    finally:
        made.end()


def install(manager, apps, *words, more=()):
    text = init("systemd", *words, cwd=apps)
    text = text.replace("[Service]\n", "[Service]\n" + "".join(f"{line}\n" for line in more))
    (manager.units / "web.service").write_text(text)
    manager.ctl("daemon-reload")


def test_start_reload_and_stop(apps, manager):
    port = free_port()
    install(manager, apps, "-w", 2, "--timeout", 20, "asyncio_server.py", port)
    manager.ctl("start", "web")
    assert get(port)["version"] == "1"  # it returned when it served
    assert manager.show("StatusText") == "generation 1, 2 of 2 ready"
    pid = manager.master()
    edit(apps / "asyncio_server.py", 'VERSION = "1"', 'VERSION = "2"')
    manager.ctl("reload", "web")
    assert get(port)["version"] == "2"
    assert manager.show("StatusText") == "generation 2, 2 of 2 ready"
    edit(apps / "asyncio_server.py", 'VERSION = "2"', "VERSION = oh no")
    done = manager.ctl("reload", "web", code=None)
    notifies = manager.show("Type") == "notify-reload"  # has no word for one that failed
    assert notifies or done.returncode != 0
    assert get(port)["version"] == "2"
    assert "reload failed" in manager.show("StatusText")
    assert (manager.show("ActiveState"), manager.master()) == ("active", pid)
    client = socket.create_connection(("127.0.0.1", port), GENEROUS)
    client.settimeout(GENEROUS)
    send_request(client)
    manager.ctl("stop", "web")
    assert read_answer(client)["version"] == "2"  # begun before: KillMode=mixed
    assert manager.show("Result") == "success"


def test_a_program_that_does_not_start_fails_the_start(apps, manager):
    install(manager, apps, "-w", 1, "--give-up", 1, "syntax_error.py")
    manager.ctl("start", "web", code=1)


def test_a_master_that_hangs_is_replaced(apps, manager):
    port = free_port()
    words = ("-w", 1, "http_server.py", port)
    install(manager, apps, *words)
    text = (manager.units / "web.service").read_text()
    (manager.units / "web.service").write_text(text.replace("WatchdogSec=30", "WatchdogSec=1"))
    manager.ctl("daemon-reload")
    manager.ctl("start", "web")
    time_of = manager.show("WatchdogTimestampMonotonic")
    until(lambda: manager.show("WatchdogTimestampMonotonic") != time_of)  # it is heard of
    pid = manager.master()
    stop(pid)
    until(lambda: manager.show("NRestarts") == "1" and manager.master() not in (None, pid))
    until(lambda: manager.show("ActiveState") == "active")
    assert get(port)["version"] == "1"


def connected(address):
    made = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    made.settimeout(GENEROUS)
    made.connect(address)
    return made


@pytest.mark.parametrize("kind", ["tcp", "path"])
def test_a_killed_master_finds_its_queues_again(kind, apps, manager):
    port = free_port()
    address = ("127.0.0.1", port) if kind == "tcp" else str(apps / "app.sock")
    server, where = ("asyncio_server.py", port) if kind == "tcp" else ("unix_asyncio.py", address)
    install(manager, apps, "-w", 2, server, where)
    manager.ctl("start", "web")
    kept = "2" if kind == "tcp" else "1"
    until(lambda: manager.show("NFileDescriptorStore") == kept)
    pid = manager.master()
    for one in descendants(pid):
        if server.encode() in cmdline(one):
            stop(one)
    waiting = [connected(address) for _ in range(8)]
    for one in waiting:
        send_request(one)
    os.kill(pid, signal.SIGKILL)
    assert {read_answer(one)["version"] for one in waiting} == {"1"}
    assert manager.show("NRestarts") == "1"


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()
