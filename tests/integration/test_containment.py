"""An error in the master's own code ends at the worker whose event it handled."""

import contextlib
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import faulty
import pytest
from clients import Broken, connect, get, send_request
from ctlcase import likely
from harness import GENEROUS, TERM, Running, comes_to_rest, free_port, until

from recluster import _engine
from recluster.master import executor, handlers
from recluster.population import commands

# Those of csrc/recluster.h that have a worker.
EVENTS = {
    "DOOR",
    "LISTENING",
    "ACCEPTING",
    "DEAF",
    "MESSAGE",
    "GARBLED",
    "EXIT",
    "GONE",
    "HUNG",
    "TAKES",
    "BLIND",
    "IN_THE_WAY",
}
OPTIONS = (
    "--workers", 2, "--respawn", 0.05, "--backoff", 0.2, "--drain-settle", 0.1, "--timeout", 5,
    "--drain-quiet", 0.1, "--balance", "reuseport",
)  # fmt: skip
MORE = {
    "_ask": ("--ready-url", "/"),
    "_hung": ("--hang-timeout", 0.3),
    "_takes": (),
    "_give_up": ("--hang-timeout", 0.3),
    "_abort": ("--hang-timeout", 0.3),
    "_kill": ("--hang-timeout", 0.3),
    "_hold": ("--hold", 0.1),
    "_move": ("--drain-quiet", 60),
    "_measure": ("--max-rss", "1T"),  # every 0.1 s, in faulty.py
}


class Faulty(Running):
    """The master of faulty.py."""

    def __init__(self, where, when, *args, **more):
        self.where, self.when = where, when
        self.address, other = free_port(), free_port()
        if where in ("_refuse", "_in_the_way"):
            args = (*args, "--bind", f"0.0.0.0:{other}")
        if where == "_blind":
            more["env"] = {"DROPS": "1"}
        if where == "_move":
            more["env"] = {"SILENT": "1"}
        super().__init__(*args, "every_event.py", self.address, other, **more)

    def _popen(self, command, **more):
        script = [str(Path(faulty.__file__)), self.where, self.when]
        whole = [command[0], *script, *command[3:]]
        if self.where == "_blind":  # a master that may not look into who has dropped rights
            kept = "-all,+setuid,+setgid,+kill,+dac_override"
            whole = ["setpriv", "--inh-caps", kept, "--bounding-set", kept, *whole]
        return super()._popen(whole, **more)

    def hit(self):
        self.count("online")  # read what comes, or the pipe is full
        return f"fault in {self.where}" in self.stderr()

    def answering(self):
        """slot -> pid, when all have been seen to answer."""
        found = {}
        for _ in range(40):
            with contextlib.suppress(OSError, Broken):
                answer = get(self.address, timeout=2)
                found[answer["worker"]] = answer["pid"]
            if len(found) == 2:
                return found
        self.count("online")
        return None

    def answers_anew(self, before):
        """None of those that answered before does now."""
        found = self.answering()
        return found and not set(found.values()) & set(before.values()) and found

    def request(self, path):
        with contextlib.suppress(OSError, Broken):
            return get(self.address, path, timeout=2)["pid"]


def kill(pid):
    """A fault may have ended it before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def hang(running, pid):
    """Until it was hit, or at least said that it hangs."""
    os.kill(pid, signal.SIGSTOP)
    with contextlib.ExitStack() as waiting:

        def told():
            with contextlib.suppress(OSError):
                send_request(waiting.enter_context(connect(running.address, 0.5)))
            running._read(0.05)
            return running.hit() or running.count("hung", pid=pid)

        until(told)


def provoke(running, apps):
    """What an ordinary life does not bring about."""
    where, pids = running.where, until(running.answering)
    if where == "_deaf":
        running.request("/close")
    elif where == "_in_the_way":
        running.request("/other")
    elif where == "_refuse":
        until(running.hit)
    elif where == "_find_deaf":
        running.request("/disconnect")
    elif where in ("_hung", "_takes", "_give_up", "_abort", "_kill"):
        hang(running, pids["0"])
        if where == "_takes":
            os.kill(pids["0"], signal.SIGCONT)
    elif where == "_hold":
        (apps / "slow").touch()
        for pid in pids.values():
            kill(pid)
        until(running.hit)
        (apps / "slow").unlink()
    elif where == "_end_strays":
        (apps / "background").touch()
        kill(pids["0"])
        until(running.hit)
    elif where == "_inherit":
        (apps / "slow").touch()
        running.signal(signal.SIGUSR2)
        running.wait_each("online", 2, generation=2)
        for pid in pids.values():
            kill(pid)
        until(running.hit)
        (apps / "slow").unlink()
    elif where == "_move":  # one that waits for the rest of a request
        with connect(running.address) as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            running.signal(signal.SIGUSR2)
            until(running.hit)
    elif where == "control":
        answer = ask(running, b'{"cmd": "status"}\n')
        assert answer["ok"] or "Fault" in answer["error"]
    else:
        return
    until(lambda: running.hit() or running.request("/") is running)


def ask(running, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GENEROUS)
        connection.connect(likely(running.process.pid))
        connection.sendall(line)
        return json.loads(connection.makefile().readline())


def test_every_handler_is_in_the_table():
    kinds = {name for name in dir(_engine) if name.isupper()}
    events = {getattr(_engine, name) for name in kinds & EVENTS}
    assert set(handlers.HANDLERS) == events
    base = commands.Command, commands.OfWorker
    kinds = {one for one in vars(commands).values() if isinstance(one, type)} - {*base}
    assert {commands.Spawn, commands.Notice, *executor.HANDLERS} == {
        one for one in kinds if issubclass(one, base)
    }


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", faulty.NAMES)
def test_the_cluster_serves_on(where, when, apps):
    if where == "_blind" and not (os.geteuid() == 0 and shutil.which("setpriv")):
        pytest.skip("root and setpriv are needed")
    with Faulty(where, when, *OPTIONS, *MORE.get(where, ()), cwd=apps) as running:
        first = until(running.answering)
        kill(first["0"])
        until(lambda: (running.answering() or first)["0"] != first["0"])
        provoke(running, apps)
        before = until(running.answering)
        for _ in range(3):  # a reload may be what the fault ends
            running.signal(signal.SIGUSR2)
            with contextlib.suppress(AssertionError):
                until(lambda: running.answers_anew(before), 5.0)
                break
        until(lambda: running.answers_anew(before), 1.0)
        status = ask(running, b'{"cmd": "status"}\n')["status"]
        assert [len(slot["workers"]) >= 1 for slot in status["slots"]] == [True, True]
        if where != "_measure":
            comes_to_rest(running.pidfd)
        assert running.end(TERM) == 0
        assert running.hit(), "it was never called"
        named = [line for line in running.log() if "Fault" in line]
        assert where == "control" or named, "nothing was said"
        assert "Traceback" not in running.stderr()
