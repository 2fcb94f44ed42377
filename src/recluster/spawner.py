"""From a Spawn command to a process: forked without exec, or exec'd.

Owns the choice between the two and the worker's environment. A forked worker
leaves through `Forked`, raised here in the child.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable

from . import _engine
from .commands import Spawn
from .forked import Forked
from .launch import SHIM, Changes, Program, changed
from .loaders import loads_as_we


def _preload(environ: dict[str, str], what: str) -> None:
    others = environ.get("LD_PRELOAD")
    environ["LD_PRELOAD"] = f"{SHIM} {others}" if others else SHIM
    environ["RECLUSTER_SHIM"] = what


class Spawner:
    """`may_fork`: the process is only a master (the command line), and so may be
    forked into a worker without exec. `receives`: programs that are exec'd may have
    the preload library, to receive in dispatch what would cost more by a trapped
    accept. `on_fork`: called in a forked worker first, to close what is none of its
    business."""

    def __init__(
        self,
        engine: _engine.Engine,
        program: Program,
        door: int,
        *,
        may_fork: bool,
        receives: bool,
    ) -> None:
        self.door = door
        self._receives = receives and bool(SHIM)
        self.on_fork: list[Callable[[], object]] = []
        self._engine = engine
        self._program = program
        self._may_fork = may_fork
        if program.names_path:
            engine.expect_paths()

    def spawn(self, command: Spawn) -> int:
        """The pid. Raises OSError when the kernel refuses a process, or the
        command is gone; Forked in a forked worker."""
        engine, changes = self._engine, self._program.changes()
        channel = engine.new_worker(
            command.worker, command.heir_of, command.slot, command.party, command.generation
        )
        changes["WORKER_ID"] = str(command.slot)
        changes["RECLUSTER_GENERATION"] = str(command.generation)
        changes["NODE_CHANNEL_FD"] = str(channel)
        changes["NODE_CHANNEL_SERIALIZATION_MODE"] = "json"
        try:
            if self._forks():
                return self._fork(command.worker, changes, channel)
            return self._exec(command.worker, changed(os.environ, changes))
        except OSError:
            with contextlib.suppress(OSError):  # a refused fork has freed it
                engine.release(command.worker)
            raise

    def _forks(self) -> bool:
        return (
            self._may_fork
            and self.door == _engine.NOTIFY
            and not self._program.needs_exec
            and threading.active_count() == 1
        )

    def _fork(self, key: int, changes: Changes, channel: int) -> int:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        program = self._program
        passes = bool(self._engine.balance_how())
        forked = Forked(
            program.target, program.args, changes, program.cwd(), channel, program.dumps, passes
        )
        pid = self._engine.fork(key, self.door)
        if pid == 0:
            for close in self.on_fork:
                close()
            raise forked
        return pid

    def _exec(self, key: int, environ: dict[str, str]) -> int:
        words = self._program.command(environ)
        if self._program.dumps:
            environ.setdefault("PYTHONFAULTHANDLER", "1")
        if self.door == _engine.PRELOAD:
            _preload(environ, self._engine.shim_address(key))
        elif self._receives and self._engine.balance_how() and loads_as_we(words[0]):
            _preload(environ, _engine.SHIM_RECEIVES)
        return self._engine.exec(
            key,
            self.door,
            [os.fsencode(word) for word in words],
            [os.fsencode(f"{name}={value}") for name, value in environ.items()],
            os.fsencode(self._program.cwd()),
        )
