"""A recluster master that strange things happen to, each by name, all written down."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from subprocess import DEVNULL

import deny
from harness import ENVIRONMENT, Running, until

from recluster.control.places import likely_paths

from . import processes
from .checker import Deeds

BROKEN = ("syntax", "exits", "raises", "hangs", "wrong_port")
READY_TIMEOUT = 3
REST_WITHIN = 60.0
UNTOLD = 1.0  # seconds until a look without an event: that strays of the dead have gone is none


class Asker(threading.Thread):
    """Control clients beside everything else: they ask, hang, speak nonsense, go away."""

    def __init__(self, cluster, chance):
        super().__init__(daemon=True)
        self._cluster, self._chance, self._over = cluster, chance, threading.Event()

    def run(self):
        while not self._over.is_set():
            kind = self._chance.randrange(4)
            with contextlib.suppress(OSError, ValueError, AssertionError, StopIteration):
                if kind == 0:
                    self._cluster.ask({"cmd": "status"})
                elif kind == 1:
                    self._cluster.ask("nonsense \xff")
                else:
                    with self._cluster.call() as connection:
                        connection.sendall(b'{"cmd": "sta' if kind == 2 else b"")
            self._over.wait(self._chance.random() * 0.2)

    def close(self):
        self._over.set()
        self.join()


class Cluster:
    """`deploy` writes what the next spawn runs; everything else is done to what runs."""

    def __init__(self, app, port, workers, options, tag, denied=()):
        self.app, self.port, self.workers = app, port, workers
        self.source = app.read_text()
        self.version, self.deeds, self.good = 1, Deeds(), True
        self.deeds.floors.append((0.0, 1))
        told = app.parent / "told"
        told.mkdir()
        self.told = told
        self.shares = "shared" in options
        self.after = 0
        words = ["--workers", workers, "--respawn", 0.1, "--backoff", 0.5, "--drain-settle", 0.3]
        words += [
            "--drain-quiet",
            1,
            "--shutdown-timeout",
            40,
            "--ready-timeout",
            READY_TIMEOUT,
            "--timeout",
            30,
            *options,
        ]
        self.running = Running(
            *words, app.name, port, told, cwd=app.parent, env={"CHAOS": tag}, stdout=DEVNULL,
            preexec_fn=(lambda: deny.install(denied)) if denied else None,
        )  # fmt: skip
        self.pid = self.running.process.pid

    # ---- asking ------------------------------------------------------------------------

    def call(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        paths = likely_paths(self.pid, ENVIRONMENT)
        connection.connect(next(path for path in paths if os.path.exists(path)))
        return connection

    def ask(self, what):
        with self.call() as connection:
            line = what if isinstance(what, str) else json.dumps(what)
            connection.sendall(line.encode(errors="replace") + b"\n")
            return json.loads(connection.makefile("rb").readline())

    def status(self):
        return self.ask({"cmd": "status"})["status"]

    def in_state(self, *wanted):
        """pids of the workers that are so now, by slot."""
        workers = [(w, s) for s in self.status()["slots"] for w in s["workers"]]
        return [w["pid"] for w, _ in workers if w["pid"] and w["state"] in wanted]

    # ---- deeds ---------------------------------------------------------------------------

    def deploy(self, mode="good"):
        """Of a version that no other deploy has had."""
        self.version += 1
        if mode in BROKEN:
            self.deeds.broken.add(self.version)
        text = self.source.replace("VERSION = 1\n", f"VERSION = {self.version}\n")
        text = text.replace('MODE = "good"', f'MODE = "{mode}"')
        if mode == "syntax":
            text = "def broken(:\n" + text
        fresh = self.app.with_suffix(".new")
        fresh.write_text(text)
        later = 10.0 * self.version + time.time()
        os.utime(fresh, (later, later))
        fresh.replace(self.app)
        self.good = mode == "good"
        return self.version

    def reload(self):
        self.begins()
        self.running.signal(signal.SIGUSR2)

    def begins(self):
        """From now on an outcome is that of a generation that is not there yet."""
        self.after = self.newest_generation()

    def outcome(self, timeout=REST_WITHIN):
        while (found := self.running.wait_for("reload", timeout))["generation"] <= self.after:
            pass
        return found

    def newest_outcome(self):
        """Not of one that was superseded: to ask again for that would supersede its successor."""
        while "superseded" in ((found := self.outcome())["why"] or ""):
            pass
        return found

    def newest_generation(self):
        slots = self.status()["slots"]
        return max((w["generation"] for slot in slots for w in slot["workers"]), default=0)

    def raise_floor(self, version):
        self.deeds.floors.append((time.monotonic(), version))

    def kill_a_worker(self, chance, *states):
        pids = self.in_state(*states)
        if pids:
            pid = chance.choice(pids)
            taken = processes.kill(pid, self.port)
            self.deeds.taken += [(port, time.monotonic()) for port in taken]

    def note_crashes(self):
        """Whose connections went with workers that died of themselves."""
        for file in self.told.glob("*.lost"):
            taken = json.loads(file.read_text())
            when = time.monotonic() - (time.time() - file.stat().st_mtime)
            self.deeds.taken += [(port, when) for port in taken]
            file.unlink()

    def kill_the_guard(self):
        children = processes.children(self.pid)
        for pid in children:
            if processes.comm(pid) == "recluster-guard":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ---- at rest -----------------------------------------------------------------------------

    def at_rest(self):
        """What is not as it must be when nothing is under way; nothing if all is."""
        status = self.status()
        if status["reloading"] is not None:
            return "a reload is under way"
        slots = [slot for slot in status["slots"] if slot["workers"]]
        states = [[worker["state"] for worker in slot["workers"]] for slot in slots]
        if states != [["serving"]] * self.workers:
            return f"{states}, not {self.workers} that serve"
        generations = {w["generation"] for slot in slots for w in slot["workers"]}
        return f"generations {generations}" if len(generations) > 1 else ""

    def come_to_rest(self):
        """The good code everywhere. Returns what is wrong with that."""
        version = self.deploy()
        self.reload()
        until(lambda: self.newest_outcome()["ok"] or self.reload(), REST_WITHIN)
        self.raise_floor(version)
        deadline = time.monotonic() + REST_WITHIN
        while why := self.at_rest():
            left = deadline - time.monotonic()
            if left <= 0:
                return [f"does not come to rest: {why}"]
            self.running.hears(min(left, UNTOLD))
        return []

    def idles(self, seconds=1.5):
        """Without clients, in so many seconds in a row it makes no system call."""
        deadline = time.monotonic() + REST_WITHIN
        while time.monotonic() < deadline:
            before = processes.switches(self.pid)
            if self.running.pidfd.is_dead(seconds):
                return ["the master has ended"]
            if processes.switches(self.pid) == before:
                return []
        return ["the master has work though nothing happens"]

    def end(self):
        self.running.signal(signal.SIGTERM)
        return self.running.wait(REST_WITHIN)
