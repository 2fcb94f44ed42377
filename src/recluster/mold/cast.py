"""The mold itself: imports, then forks one worker after another on the master's word.

Owns what workers get from it: modules, sys.path and argv, the working directory, and the
generation that these are of. Between two forks it does nothing but wait, and it never imports
after the first. Where a module has left what cannot be shared, it begins anew without it, as
the same process: exec is the one way to be rid of a thread.
"""

from __future__ import annotations

import _socket
import atexit
import collections.abc
import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .. import _engine
from ..child import forked, preloaded
from ..child.forked import Forked
from ..child.launch import Target
from ..child.preloaded import RING, SHIM
from ..child.uncaught import last_line, show
from . import ending
from .importing import carry_out
from .leavings import children
from .notes import Notes
from .plan import Plan, Step
from .reseed import prepared

COMMAND = "recluster.mold"
FROM_MASTER = "-"
LONGEST = 500
REQUEST_MOST = 1 << 16


class Line:
    """To the master."""

    def __init__(self, fd: int, ours: bool) -> None:
        """`ours`: the master is the workers' parent."""
        self._ours = ours
        os.set_inheritable(fd, False)
        # The C type: what its methods need no worker has to touch.
        self._socket: Any = _socket.socket(fileno=fd)
        self._kept: object = None
        self.notes = Notes()

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def tell(self, **said: object) -> None:
        self._socket.sendall(json.dumps({"cmd": COMMAND, **said}).encode() + b"\n")

    def plan(self) -> Plan:
        text = b""
        while not text.endswith(b"\n"):
            more = self._socket.recv(REQUEST_MOST)
            if not more:
                _engine.leave(0)
            text += more
        return Plan.of(text)

    def fork_workers(self) -> tuple[int, int, dict[str, str]]:
        """Returns in each worker: its slot, its channel's number, and whom its library asks.
        Ends with the master."""
        while True:
            text, fds, _, _ = socket.recv_fds(
                self._socket, REQUEST_MOST, 3, socket.MSG_CMSG_CLOEXEC
            )
            if not text:
                _engine.leave(0)  # exit handlers are the workers'
            for line in text.splitlines():
                if line == b"notes":
                    self.tell(notes=self.notes.read())
                    continue
                *numbers, ring, shim = line.decode().split()
                worker, slot, traps, shows = map(int, numbers)
                if self._fork(worker, traps, fds):
                    self._socket.detach()  # closed by the fork
                    self._kept = text, fds, line, numbers  # to free them is to touch them
                    if shows:
                        self.notes.begin()
                    if len(fds) > 1:
                        _speak_into(fds[1:])
                    told = {}
                    if ring != "-":
                        told[RING] = ring
                    if shim != "-":
                        told[SHIM] = shim
                    return slot, fds[0], told

    def _fork(self, worker: int, traps: int, fds: list[int]) -> bool:
        """Whether this is the worker."""
        if not fds:
            self.tell(unborn=worker, why="the mold has no descriptor left")
            return False
        try:
            pid = _engine.fork_worker(self.fileno(), fds[0], traps, self._ours)
        except OSError as error:
            self.tell(unborn=worker, why=error.strerror)
        else:
            if pid == 0:
                return True
            self.tell(born=worker, pid=pid)
        for fd in fds:
            os.close(fd)
        return False


def _speak_into(output: list[int]) -> None:
    """Standard output and error, where the master reads them."""
    for stream, fd in enumerate(output, 1):
        os.dup2(fd, stream)
        os.close(fd)


def _be_worker(slot: int, channel: int, reseed: Callable[[], object] | None) -> None:
    os.environ["WORKER_ID"] = str(slot)
    os.environ["NODE_CHANNEL_FD"] = str(channel)
    os.environ["NODE_CHANNEL_SERIALIZATION_MODE"] = "json"
    ours = sys.modules.get("recluster.worker")
    if ours is not None:
        ours.begin()
    if reseed is not None:
        reseed()


class Beginning:
    """How this process began, to begin so once more."""

    def __init__(self) -> None:
        self._words, self._environ = list(sys.orig_argv), dict(os.environ)
        self._state = len(sys.orig_argv) - len(sys.argv) + 2  # behind run.py and CHANNEL
        self._cwd = os.getcwd()

    def again(self, plan: Plan, line: int) -> NoReturn:
        for child in children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir(self._cwd)
        state = os.memfd_create("plan", 0)
        os.write(state, plan.text())
        os.lseek(state, 0, os.SEEK_SET)
        low, high = sorted((line, state))
        for begin, end in ((3, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(begin, end)
        os.set_inheritable(line, True)
        self._words[self._state] = str(state)
        os.execve(sys.executable, self._words, self._environ)


def _plan(state: str, line: Line) -> Plan:
    if state == FROM_MASTER:
        return line.plan()
    with open(int(state), "rb") as file:
        return Plan.of(file.read())


def _without_main(steps: list[Step], target: Target) -> list[Step]:
    """What runs as `__main__` is found by name too, but not imported."""
    name = target.words[0]
    if target.kind == "module" and f"{name}.__main__" not in steps:
        steps = [one for one in steps if one != name]
    return [one for one in steps if not (isinstance(one, str) and one.endswith(".__main__"))]


def _ask_what_is_asked() -> None:
    """Each first isinstance() of an abstract class looks at all its subclasses, and notes in each
    what it found: here, for what any program asks (os.environ.update does), and not in each
    worker. After the imports: classes that register make notes void."""
    empty: tuple[object, ...] = ("", b"", 0, 0.0, None, (), [], {}, set(), (_ for _ in ()))
    samples = (*empty, cast, Line.tell, type)
    for name in collections.abc.__all__:
        for sample in samples:
            with contextlib.suppress(Exception):  # it asks whom it will
                isinstance(sample, getattr(collections.abc, name))


def cast(channel: str, state: str, how: str, kind: str, name: str, *args: str) -> Callable[[], int]:
    """Returns in each worker what it is to do."""
    beginning, line = Beginning(), Line(int(channel), ours="o" in how)
    plan = _plan(state, line)
    if not atexit._ncallbacks():  # an agent's, of a .pth file or sitecustomize, run after ours
        atexit.register(ending.last)
    target = Target(kind, (name,))
    program = Forked(target, args, {}, os.getcwd(), 0, how[1:])
    forked.appear(program)
    plan.steps = _without_main(plan.steps, target)
    outcome = carry_out(plan)
    if outcome.again:
        beginning.again(outcome.again, line.fileno())
    if outcome.error:
        show(outcome.error)
        line.tell(failed=last_line(outcome.error)[:LONGEST])  # and the master ends it
        raise SystemExit(1)
    ending.flush(ending.open_writers())
    reseed = prepared()
    _ask_what_is_asked()
    sys.modules.pop("__mp_main__", None)
    forked.make_ready(program)
    gc.freeze()
    if sys.version_info < (3, 12):  # since then names are immortal
        # Each entry that a worker replaces there is a reference less to a name, and so a write,
        # somewhere in what is shared.
        sys._clear_type_cache()
    _engine.forget_file_pages()
    gone = set(outcome.missing)
    plan.steps = [step for step in plan.steps if str(step) not in gone]
    line.tell(ready=plan.told())

    # To free in a worker what the mold had is to unshare the pages that it lies in.
    kept = (beginning, line, plan, outcome, gone)

    def become(_: object = kept) -> int:
        code = forked.become(program)
        ending.ends_with(code)
        return code

    slot, program.channel, program.library = line.fork_workers()
    preloaded.tell(program.library)
    _be_worker(slot, program.channel, reseed)
    return become
