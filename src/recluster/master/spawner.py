"""From a Spawn command to a process: forked without exec, or exec'd.

Owns the choice between the two and the worker's environment. A forked worker
leaves through `Forked`, raised here in the child.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import _engine
from ..child.forked import Forked
from ..child.launch import SHIM, Changes, Program, changed
from ..child.loaders import loads_as_we
from ..child.preloaded import RING, is_loaded
from ..child.preloaded import SHIM as TOLD
from ..host.forks import has_one_thread
from ..mold.nursery import Nursery
from ..population.commands import Spawn


def _preload(environ: dict[str, str], told: dict[str, str]) -> None:
    others = environ.get("LD_PRELOAD")
    environ["LD_PRELOAD"] = f"{SHIM} {others}" if others else SHIM
    environ.update(told)


@dataclass(eq=False)
class Spawner:
    """`may_fork`: the process is only a master (the command line), and so may be
    forked into a worker without exec. `receives`: in dispatch workers have the preload
    library, to be passed connections. `rings`: workers are to be given connections.
    `output`: called for each worker before it is born, to read what it writes. `on_fork`:
    called in a forked worker first, to close what is none of its business."""

    engine: _engine.Engine
    program: Program
    door: int
    may_fork: bool
    receives: bool
    rings: bool = False
    output: Callable[[_engine.Engine, int], object] | None = None
    nursery: Nursery | None = field(default=None, init=False)
    on_fork: list[Callable[[], object]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.rings and SHIM and not self.engine.balance_how():
            with contextlib.suppress(OSError):  # no memfd: nobody receives, as ever
                self.engine.ring_open()
        self.receives = self.receives and bool(SHIM)
        if self.program.names_path:
            self.engine.expect_paths()

    def spawn(self, command: Spawn, now: float) -> int:
        """The pid; 0: it is born later, of a mold. Raises OSError when the kernel refuses
        a process, or the command is gone; Forked in a forked worker."""
        engine, changes = self.engine, self.program.changes()
        channel = engine.new_worker(
            command.worker, command.heir_of, command.slot, command.party, command.generation
        )
        changes["WORKER_ID"] = str(command.slot)
        changes["RECLUSTER_GENERATION"] = str(command.generation)
        changes["NODE_CHANNEL_FD"] = str(channel)
        changes["NODE_CHANNEL_SERIALIZATION_MODE"] = "json"
        if self.output is not None:
            self._listen_to(command.worker)
        if self.nursery is not None and self.nursery.door == self.door:
            self.nursery.expect(command, now)
            return 0
        try:
            if self._forks():
                return self._fork(command.worker, changes, channel)
            return self._exec(command.worker, changed(os.environ, changes))
        except OSError:
            with contextlib.suppress(OSError):  # a refused fork has freed it
                engine.release(command.worker)
            raise

    def _listen_to(self, key: int) -> None:
        assert self.output is not None
        try:
            self.output(self.engine, key)
        except OSError:
            self.engine.release(key)
            raise

    def _forks(self) -> bool:
        if not self.may_fork or self.door != _engine.NOTIFY or self.program.needs_exec:
            return False
        if self.receives and self.engine.balance_how() and not is_loaded():
            return False
        self.engine.rest()
        return has_one_thread()

    def _fork(self, key: int, changes: Changes, channel: int) -> int:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        program = self.program
        forked = Forked(program.target, program.args, changes, program.cwd(), channel, program.how)
        forked.library = self._told(key)
        pid = self.engine.fork(key, self.door)
        if pid == 0:
            for close in self.on_fork:
                close()
            raise forked
        return pid

    def _told(self, key: int) -> dict[str, str]:
        """What the library of this worker is to do beside, or instead of, being the door."""
        if self.engine.balance_how():
            return {TOLD: _engine.SHIM_RECEIVES} if self.receives else {}
        address = self.engine.ring_address(key)
        return {RING: address} if address else {}

    def _exec(self, key: int, environ: dict[str, str]) -> int:
        words = self.program.command(environ)
        if self.program.dumps:
            environ.setdefault("PYTHONFAULTHANDLER", "1")
        if self.output is not None and self.program.target.kind == "command":
            environ.setdefault("PYTHONUNBUFFERED", "1")  # a line is told when it is said
        if self.door == _engine.PRELOAD:
            _preload(environ, {**self._told(key), TOLD: self.engine.shim_address(key)})
        elif (told := self._told(key)) and loads_as_we(words[0]):
            _preload(environ, told)
        return self.engine.exec(
            key,
            self.door,
            [os.fsencode(word) for word in words],
            [os.fsencode(f"{name}={value}") for name, value in environ.items()],
            os.fsencode(self.program.cwd()),
        )
