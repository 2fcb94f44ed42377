"""The main job from start to end, without a human: python examples/demo.py

Starts a cluster of four unmodified servers, edits the server's file, reloads
under load, kills a worker, ends. Says what it sees; exits 0 if all of it held, 1
if not. It waits on events of the master (--events), never for a while.
"""

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WORKERS = 4
CLIENTS = 8
PATIENCE = 30.0  # seconds for any one step
SERVER = Path(__file__).with_name("stdlib_server.py")


class Failed(Exception):
    """Something did not hold; the message says what."""


class Events:
    """The master's events, one JSON object per line of a pipe."""

    def __init__(self, fd):
        self._fd = fd
        self._rest = b""
        self._lines = []

    def next(self, deadline):
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                raise Failed(f"nothing came from the master within {PATIENCE:g} s")
            data = os.read(self._fd, 65536)
            if not data:
                raise Failed("the master has ended")
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        return json.loads(self._lines.pop(0))

    def wait(self, name, wanted=lambda event: True):
        """The next event of that name that is wanted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            event = self.next(deadline)
            if event["event"] == name and wanted(event):
                return event


def ask(port):
    """One request on a connection of its own; the answer's facts."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        return json.loads(response.read())


def ask_all(port):
    """Ask until each worker has answered; worker -> pid."""
    seen = {}
    deadline = time.monotonic() + PATIENCE
    while len(seen) < WORKERS:
        if time.monotonic() > deadline:
            raise Failed(f"only workers {sorted(seen)} answered within {PATIENCE:g} s")
        facts = ask(port)
        seen[facts["worker"]] = facts["pid"]
    return dict(sorted(seen.items()))


class Load:
    """Clients that open a new connection for each request, until `stop`."""

    def __init__(self, port):
        self._port = port
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.answers = []  # (when its connection was opened, version)
        self.failures = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._stop.is_set():
            opened = time.monotonic()
            try:
                version = ask(self._port)["version"]
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                continue
            with self._changed:
                self.answers.append((opened, version))
                self._changed.notify_all()

    def wait_for(self, count):
        """Until that many more requests were answered."""
        with self._changed:
            goal = len(self.answers) + count
            if not self._changed.wait_for(lambda: len(self.answers) >= goal, PATIENCE):
                raise Failed(f"{CLIENTS} clients got no {count} answers in {PATIENCE:g} s")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(server, port, log):
    """The master, and its events."""
    reader, writer = os.pipe()
    # fmt: off
    command = [
        sys.executable, "-m", "recluster", "--workers", str(WORKERS), "--events", str(writer),
        str(server), str(port),
    ]
    # fmt: on
    master = subprocess.Popen(command, pass_fds=[writer], stdout=log, stderr=log)
    os.close(writer)
    return master, Events(reader)


def edit(server, old, new):
    server.write_text(server.read_text().replace(f'VERSION = "{old}"', f'VERSION = "{new}"'))


def must(held, text):
    if not held:
        raise Failed(text)


def show_start(events, port):
    for _ in range(WORKERS):
        events.wait("ready")
    pids = ask_all(port)
    shown = ", ".join(f"{worker} (pid {pid})" for worker, pid in pids.items())
    print(f"   All {WORKERS} answer on http://127.0.0.1:{port}/: workers {shown}")


def show_reload(master, events, server, port):
    load = Load(port)
    try:
        load.wait_for(200)
        edit(server, "1", "2")
        master.send_signal(signal.SIGUSR2)
        reload = events.wait("reload")
        cutover = time.monotonic()
        load.wait_for(500)
        # The old workers still take what was on its way, and then end.
        for _ in range(WORKERS):
            events.wait("exit", lambda event: event["generation"] == 1)
        load.wait_for(100)
    finally:
        load.stop()
    must(reload["ok"], f"the reload failed: {reload.get('why')}")
    before = sum(version == "1" for _, version in load.answers)
    late = [version for opened, version in load.answers if opened > cutover]
    print(f"   The new workers took over {reload['seconds'] * 1000:.0f} ms after the signal.")
    print(
        f"   {len(load.answers)} requests answered ({before} by version 1), "
        f"{len(load.failures)} failed."
    )
    print(
        f"   {len(late)} connections opened after the reload: "
        f"{late.count('2')} answered by version 2, {late.count('1')} by version 1."
    )
    must(not load.failures, f"a request failed: {load.failures[:3]}")
    must(late and set(late) == {"2"}, "old code answered a new connection")


def show_replacement(events, port):
    worker, pid = next(iter(ask_all(port).items()))
    os.kill(pid, signal.SIGKILL)
    events.wait("exit", lambda event: event["pid"] == pid)
    ready = events.wait("ready", lambda event: event["slot"] == int(worker))
    pids = ask_all(port)
    print(
        f"   Worker {worker} was pid {pid}, is now pid {pids[worker]}, "
        f"ready {ready['seconds'] * 1000:.0f} ms after its start; all {WORKERS} answer."
    )
    must(pids[worker] == ready["pid"] != pid, "the killed worker was not replaced")


def show_end(master, port):
    master.terminate()
    code = master.wait(PATIENCE)
    with socket.socket() as probe:
        refused = probe.connect_ex(("127.0.0.1", port)) != 0
    port_is = "free" if refused else "held"
    print(f"   The master ended with exit code {code}; the port is {port_is}.")
    must(code == 0 and refused, "the cluster did not end cleanly")


def run(directory, log):
    server = directory / SERVER.name
    shutil.copy(SERVER, server)
    port = free_port()
    print(f"1. python -m recluster --workers {WORKERS} {SERVER.name} {port}")
    master, events = start(server, port, log)
    try:
        show_start(events, port)
        print(
            f'2. Edit the file (VERSION = "2"), kill -USR2 {master.pid}, '
            f"while {CLIENTS} clients keep asking"
        )
        show_reload(master, events, server, port)
        print("3. kill -9 one worker")
        show_replacement(events, port)
        print(f"4. kill -TERM {master.pid}")
        show_end(master, port)
    finally:
        if master.poll() is None:
            master.send_signal(signal.SIGQUIT)
            try:
                master.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                master.kill()


def main():
    with tempfile.TemporaryDirectory() as name, open(Path(name, "log"), "w+") as log:
        try:
            run(Path(name), log)
        except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as error:
            log.seek(0)
            print(f"FAILED: {error}\nThe master's log:\n{log.read()[-4000:]}")
            return 1
    print("All of it held.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
