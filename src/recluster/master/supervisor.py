"""A running master: its parts, and the turns of its loop.

Owns the life of the engine, and that nobody but its owner reaches it: `running` and `alive`
ask for thread and process, `dispatch` and `drive` for re-entrancy too (host/owner.py). Has no
surface for users: what may be asked of it is in `wishes`, which the user, the control socket and
the signals share. `starting` makes the parts that need an engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import _engine, events
from ..child.launch import Program
from ..control.control import Control
from ..events.view import Worker
from ..host import loops
from ..host.interrupts import Held, Interrupts
from ..host.owner import Owner
from ..host.signals import Signals
from ..metrics.census import Census
from ..metrics.procfacts import facts_of
from ..metrics.tally import Tally
from ..mold.hint import Hint
from ..mold.nursery import FIRST as MOLDS
from ..mold.nursery import Nursery
from ..options.checks import OptionError
from ..output.eventlog import EventLog
from ..output.log import Log, to_logger
from ..output.pipes import Pipes
from ..output.recent import Recent
from ..output.sink import Output, Sink
from ..population import commands, population, sizing
from ..population.state import Population
from ..start.doors import NAMES
from ..systemd.unit import Unit
from .containment import Containment
from .executor import Executor
from .handlers import Handlers
from .links import Links
from .publisher import Publisher
from .pump import Pump
from .revision import Revision
from .settings import Settings
from .spawner import Spawner
from .watching import wanted

if TYPE_CHECKING:  # not for the master: its forked workers would find them imported
    import asyncio

    from ..metrics.exporter import Exporter
    from ..output.log import AnyLogger

TURNS_PER_DISPATCH = 64
DESCRIPTORS_EACH = 8  # of a worker, while it runs
DESCRIPTORS_MOST = 2**31 - 1  # NR_OPEN's own limit
LAST_WORDS = 0.5  # seconds that a command line's log may take at its end


def _random() -> float:
    """Of [0, 1). Module `random` would have every forked worker seed it anew."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Supervisor:
    """Of the program that `settings` name. Raises OptionError."""

    pump: Pump
    containment: Containment
    executor: Executor
    handlers: Handlers
    links: Links
    hint: Hint

    def __init__(self, settings: Settings, logger: AnyLogger | None = None) -> None:
        if not (logger is None or callable(getattr(logger, "log", None))):
            raise OptionError(f"logger: {logger!r} must be one of module logging's")
        self.options = settings.options
        self.program = Program(settings.target, self.options, settings.filed)
        self.program.check()
        self.log = Log(self.options)
        self.outputs: list[Output] = [self.log]
        self.population = Population(self.options, _random)
        out = to_logger(logger) if logger else self.log.line
        self.eventlog = EventLog(self.options, out, lambda: self.population.generation)
        self.workers: dict[int, Worker] = {}
        self.tally = Tally()
        self.census = Census(
            self,
            lambda: list(self.workers),
            lambda keys: facts_of(self.alive(), keys),
        )
        self.publisher = Publisher(self.population, self.workers, self.eventlog, self.tally)
        self.revision = Revision(settings, self.population, self.resize, self.eventlog.line)
        self.pipes: Pipes | None = None
        if self.options.prefix:
            self.pipes = Pipes(self.workers, self.log.output)
            self.outputs.append(self.pipes)
            self.publisher.at_exit.append(self.pipes.last_words)
        self.to_watch = wanted(self.options, self.program)
        self.engine: _engine.Engine | None = None
        self.owner = Owner(self._forget)
        self.signals: Signals | None = None
        self.control: Control | None = None
        self.exporter: Exporter | None = None
        self.spawner: Spawner | None = None
        self.unit: Unit | None = None
        self.nursery: Nursery | None = None
        self.balance = ""
        self.heritage: Mapping[str, Any] | None = None  # of the master whose place this one takes
        self.given_fds: list[int] = []  # of who started us; they go on to who takes our place
        self.unneeded: tuple[str, ...] = ()  # variables that are not for workers
        self.may_fork = False  # the command line's privilege: its process is only a master
        self.may_upgrade = False
        self.keeps_terminal = False  # its worker has it (host/terminal.py)
        self.loop: asyncio.AbstractEventLoop | None = None  # of a program that drives it
        self.on_end: list[Callable[[], object]] = []
        self.exit_code: int | None = None

    # ---- what its clients look at --------------------------------------------------------

    @property
    def name(self) -> str | None:
        return self.control.name.text if self.control and self.control.name else None

    @property
    def door(self) -> str | None:
        return NAMES[self.spawner.door] if self.spawner else None

    @property
    def recent(self) -> Recent | None:
        return self.log.recent

    @property
    def metrics_address(self) -> str | None:
        return self.exporter.address if self.exporter else None

    def molds(self) -> list[dict[str, Any]]:
        return self.nursery.shown() if self.nursery else []

    # ---- whose it is ---------------------------------------------------------------------

    def running(self) -> _engine.Engine | None:
        """None where it does not run. Raises RuntimeError where it is another's."""
        self.owner.check()
        return self.engine

    def alive(self) -> _engine.Engine:
        """Raises RuntimeError where it does not run, or is another's."""
        engine = self.running()
        if engine is None:
            raise RuntimeError("the cluster is not running")
        return engine

    def _forget(self) -> None:
        """In a forked child: the cluster is its parent's."""
        if self.engine is not None:
            self.engine.abandon()
            for output in self.outputs:
                output.abandon()
            self.census.abandon()
            if self.exporter:
                self.exporter.abandon()
            if self.control:
                self.control.listener.abandon()

    def begin(self, engine: _engine.Engine) -> None:
        """In the thread that it belongs to from now on."""
        self.owner, self.engine = Owner(self._forget), engine
        self.containment = Containment(engine, self.population, self.workers, self.eventlog)
        self.pump = Pump(
            engine,
            self.population,
            self.containment,
            happened=self._happened,
            carry_out=self._carry_out,
            ended=self._end,
        )

    # ---- its loop ------------------------------------------------------------------------

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self.alive()
        self.pump.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        if self.running() is not None:
            self.pump.unwatch(fd)

    def dispatch(self) -> None:
        self.owner.check_idle()
        with Held():
            for _ in range(TURNS_PER_DISPATCH):
                if self.engine is None or not self._turn(0):
                    return

    def drive(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Turn by turn until `done`, or it has ended, `timeout` seconds at most."""
        self.owner.check_idle()
        loops.refuse()
        self.publisher.emitter.refuse_coroutines()
        until = None if timeout is None else time.monotonic() + timeout
        if done() or self.engine is None:  # it has ended: there is nothing to be woken by
            return done()
        with Interrupts(self) as interrupts:
            while not done() and self.engine is not None:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._turn(left)
                interrupts.check()
        return done()

    def work(self) -> None:
        """Have done what was asked for."""
        if self.engine is not None:
            with self.owner.busy():
                self.pump.work()

    def _turn(self, timeout: float | None) -> bool:
        self.alive()
        sinks = [output for output in self.outputs if isinstance(output, Sink)]
        with self.owner.busy():
            for sink in sinks:
                sink.gather()
            try:
                return self.pump.turn(timeout)
            finally:
                for sink in sinks:
                    sink.write_out()

    # ---- what a turn is made of ------------------------------------------------------------

    def _happened(self, kind: int, key: int, value: int, text: bytes, now: float) -> None:
        known = key in self.workers and key in self.population.members
        if self.nursery and key >= MOLDS:
            self.nursery.happened(kind, key, value, text, now)
        elif known:
            self.handlers.happened(kind, key, value, text, now)

    def _carry_out(self, command: commands.Command, now: float) -> None:
        if isinstance(command, commands.Spawn):
            self._spawn(command, now)
        elif isinstance(command, commands.Notice):
            self.publisher.notice(command)
            (self.nursery or self.hint).noticed(command, now)
        elif not (self.nursery and self.nursery.cancels(command, now)):
            self.executor.carry_out(command, now)

    def _spawn(self, command: commands.Spawn, now: float) -> None:
        if self.spawner is None or population.cancelled(self.population, command.worker):
            return
        worker = Worker(command.worker, command.slot, command.generation, 0)
        self.workers[command.worker] = worker
        try:
            worker.pid = self.spawner.spawn(command, now)
        except OSError as error:
            population.spawn_failed(
                self.population, command.worker, error.strerror or str(error), now
            )
            self.workers.pop(command.worker, None)

    def resize(self, workers: int) -> None:
        """Raises OptionError."""
        self.make_room(workers)
        why = sizing.scale(self.population, workers, time.monotonic())
        if why:
            raise OptionError(f"workers: {workers}: {why}")
        self.work()

    def make_room(self, workers: int) -> None:
        """Descriptors for all generations that may run at a time."""
        generations = self.options.max_draining + 2
        room = min(128 + workers * generations * DESCRIPTORS_EACH, DESCRIPTORS_MOST)
        if not self.alive().descriptors(room):
            self.eventlog.once("room", f"RLIMIT_NOFILE is low: up to {room} may be needed")

    # ---- its end -------------------------------------------------------------------------

    def _end(self, code: int) -> None:
        self.exit_code = code
        self.release()
        self.publisher.give_up_waiting()
        self.publisher.tell(events.End(code))
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            self.publisher.emitter.guarded(callback)
        if self.loop is None:  # else tasks of callbacks may have something to tell
            self.fall_silent()

    def fall_silent(self) -> None:
        for output in self.outputs:
            output.close(LAST_WORDS if self.may_fork else 0.0)

    def release(self) -> None:
        if self.engine is None:
            return
        if self.loop is not None:
            self.loop.remove_reader(self.engine.fileno())
        for part in (self.signals, self.census, self.exporter, self.control):
            if part is not None:
                part.close()
        for output in self.outputs:
            output.detach()
        self.pump.stop()
        engine, self.engine = self.engine, None
        engine.close()
        for worker in self.workers.values():
            worker.alive = False
