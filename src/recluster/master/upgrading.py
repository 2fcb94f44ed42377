"""`recluster upgrade`: another version of recluster takes over in this process, by execve.

Owns when that is, and the way there: it can be tried (`trial`), all is at rest, what can be made
anew is ended (molds), and what is handed on is written and kept open (`heritage`). Workers run on
meanwhile; their calls to the door wait in the kernel.

Invariants:
- whatever goes wrong before the execve, this master goes on as if nobody had asked;
- no signal is lost: none is taken between the last look at those that have come and the next
  master's first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..base.levels import WARNING
from ..child import preloaded
from ..output.sink import Sink
from ..population.carried import unrest
from . import heritage
from .supervisor import Supervisor
from .trial import Trial

WITHIN = 30.0  # seconds in which all has to come to rest
PAUSE = 0.02  # between two looks whether it has
ELSEWHERE = "only a master of the command line can be upgraded, and none of `recluster dev`"

Done = Callable[[Mapping[str, Any]], None]


class Upgrading:
    """An attendant of the pump."""

    def __init__(self, core: Supervisor) -> None:
        self._core = core
        self._done: Done | None = None  # who asks is told
        self._at = self._until = 0.0
        self._trial: Trial | None = None
        self._tried = False

    def ask(self, done: Done) -> None:
        """`done` hears from this master only why it cannot be. Raises RuntimeError."""
        if not self._core.may_upgrade or self._core.signals is None:
            raise RuntimeError(f"upgrade: {ELSEWHERE}")
        if self._done is not None:
            raise RuntimeError("upgrade: another is under way")
        if why := self._never():
            raise RuntimeError(f"upgrade: {why}")
        self._done = done
        self._tried = False
        self._at = time.monotonic()
        self._until = self._at + WITHIN

    # ---- an attendant of the pump --------------------------------------------------------

    def look(self) -> None:
        pass

    def deadline(self) -> float | None:
        if self._done is None:
            return None
        return self._trial.until if self._trial else self._at

    def tick(self, now: float) -> None:
        if self._done is None:
            return
        try:
            self._go_on(now)
        except Exception as error:  # this master goes on, whatever that was
            self._refuse(f"{type(error).__name__}: {error}")

    def _go_on(self, now: float) -> None:
        if self._trial:
            if now >= self._trial.until:
                self._trial.end("the new version does not say whether it can go on")
            return
        if now < self._at:
            return
        self._at = now + PAUSE
        if why := self._never():
            return self._refuse(why)
        why = self._under_way()
        if why and now >= self._until:
            return self._refuse(f"{why}, for {WITHIN:g} s by now")
        if why:
            return None
        return self._succeed() if self._tried else self._try()

    # ---- whether it can be ---------------------------------------------------------------

    def _never(self) -> str | None:
        """What does not pass."""
        shuts_down = self._core.population.shutting_down
        return "the cluster is shutting down" if shuts_down else None

    def _under_way(self) -> str | None:
        """What has to be over first."""
        core = self._core
        if why := unrest(core.population) or core.alive().hindrance():
            return why
        if core.nursery and not core.nursery.is_idle:
            return "a worker begins"
        if (core.control and core.control.is_asked) or (core.exporter and core.exporter.is_asked):
            return "a client of the master is not answered yet"
        for output in core.outputs:
            if isinstance(output, Sink):
                output.write_out()
                output.gather()
            if not output.idle:
                return "lines wait for who reads them, or a hook runs"
        return None

    def _try(self) -> None:
        state = heritage.put(heritage.written(self._core, time.monotonic()))
        try:
            self._trial = Trial(self._core, state, self._was_tried)
        finally:
            os.close(state)

    def _was_tried(self, why: str | None) -> None:
        self._trial = None
        self._at = now = time.monotonic()
        if why:
            self._refuse(f"the new version cannot go on: {why}")
        else:
            self._tried = True
            self._until = now + WITHIN

    def _refuse(self, why: str) -> None:
        done, self._done = self._done, None
        self._core.eventlog.line(f"not upgraded: {why}", WARNING)
        if done is not None:
            done({"ok": False, "error": f"not upgraded: {why}"})

    # ---- doing it --------------------------------------------------------------------------

    def _succeed(self) -> None:
        nursery, signals = self._core.nursery, self._core.signals
        if nursery and not nursery.rests():
            return
        began = time.monotonic()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            if signals is not None and not signals.waiting:
                self._become(heritage.written(self._core, began))
        finally:  # it has not come to pass, or one has come meanwhile and goes first
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _become(self, left: heritage.Heritage) -> None:
        """Returns only by an exception."""
        engine, state = self._core.alive(), heritage.put(left)
        control, metrics = left["control"], left["metrics"]
        kept = [state, *self._core.given_fds, *(pipe[0] for pipe in left["pipes"])]
        kept += [fd for fd in (control["listener"], control["client"]) if fd] if control else []
        kept += [metrics[1]] if metrics else []
        environ = {**os.environ, heritage.MARK: str(state)}
        preloaded.again(environ)
        try:
            for fd in kept:
                os.set_inheritable(fd, True)
            engine.keep(True)
            os.execve(sys.executable, sys.orig_argv, environ)
        finally:
            engine.keep(False)
            for fd in kept:
                os.set_inheritable(fd, False)
            os.close(state)
