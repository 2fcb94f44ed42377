"""The cluster: the engine's events go to the population, its commands to the engine.

Owns the public API and everything with a side effect; decides nothing that
`population` can decide.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import _engine, events
from .base.socketfile import Refused
from .child.launch import Program
from .control.control import Control, open_control
from .control.names import name_of
from .host.actions import SignalActions
from .host.interrupts import Held
from .host.owner import Owner
from .host.signals import Signals
from .host.terminal import Terminal
from .master import succeeding
from .master.callbacks import Callbacks
from .master.containment import Containment
from .master.executor import Executor
from .master.handlers import Handlers
from .master.heritage import Heritage
from .master.hooks import open_hooks
from .master.links import Links
from .master.publisher import Publisher
from .master.pump import Pump
from .master.questions import prepare
from .master.revision import Revision
from .master.settings import Settings
from .master.spawner import Spawner
from .master.staff import Staff
from .master.upgrading import Upgrading
from .master.watching import open_watch
from .master.wishes import Wishes
from .metrics.measuring import Measuring
from .mold.hint import Hint
from .mold.nursery import FIRST as MOLDS
from .mold.nursery import Nursery, nursery_for
from .options.checks import OptionError, worker_count
from .options.variables import strangers
from .output.eventlog import EventLog
from .output.log import Log, to_logger
from .output.pipes import open_pipes
from .output.sink import Output, Sink
from .population import commands
from .population.recovery import Recovering
from .population.view import Worker
from .start import balancing
from .start.doors import ClusterError, OtherDoor, choose
from .start.identity import assume
from .start.inherit import give
from .systemd.unit import Unit, open_unit

if TYPE_CHECKING:  # not for the master: its forked workers would find them imported
    from logging import Logger, LoggerAdapter
    from typing import overload

    from typing_extensions import Unpack

    from .options.given import Given

    AnyLogger = Logger | LoggerAdapter[Any]

TURNS_PER_DISPATCH = 64
DESCRIPTORS_EACH = 8  # of a worker, while it runs
DESCRIPTORS_MOST = 2**31 - 1  # NR_OPEN's own limit
LAST_WORDS = 0.5  # seconds that a command line's log may take at its end


def _random() -> float:
    """Of [0, 1). Module `random` would have every forked worker seed it anew."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Cluster(Staff, Wishes, Callbacks):
    """N copies of an unmodified server, supervised.

    `target` is a Python file or a command (a list of words); `module=` names a
    module as `python -m` would; `config=` is a configuration file (docs/configuration.md),
    which may name them instead, and which a reload reads anew. Options: see docs/options.md;
    each may also come from RECLUSTER_<OPTION>. Raises OptionError (a ValueError) for a
    value that cannot be, ClusterError from `start` when neither door works, or
    the control socket is another master's.

    Everything happens in `dispatch`, in the thread that calls it: drive it by
    `run()`, `wait()`, `async with`, or by any loop that polls `fileno()` for
    reading and then calls `dispatch()`; nothing else is needed, deadlines
    included. From `start` on the cluster is its thread's: a method that is called from
    another one, or in a process that the host has forked, raises RuntimeError; from there
    use the loop's own `call_soon_threadsafe` or a signal. Callbacks run inside
    `dispatch` and may call every method but those that wait.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self,
            target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
            *,
            config: str | os.PathLike[str] | None = None,
            logger: AnyLogger | None = None,
            **options: Unpack[Given],
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            module: str,
            config: str | os.PathLike[str] | None = None,
            logger: AnyLogger | None = None,
            **options: Unpack[Given],
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            config: str | os.PathLike[str],
            logger: AnyLogger | None = None,
            **options: Unpack[Given],
        ) -> None: ...

    def __init__(
        self,
        target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        module: str | None = None,
        config: str | os.PathLike[str] | None = None,
        logger: AnyLogger | None = None,
        **options: Any,
    ) -> None:
        if not (logger is None or callable(getattr(logger, "log", None))):
            raise OptionError(f"logger: {logger!r} must be one of module logging's")
        settings = Settings(target, module, config, options)
        self.options = settings.options
        self._program = Program(settings.target, self.options, settings.filed)
        self._program.check()
        self._log = Log(self.options)
        self._outputs: list[Output] = [self._log]
        self._population = Recovering(self.options, _random)
        out = to_logger(logger) if logger else self._log.line
        self._eventlog = EventLog(self.options, out, lambda: self._population.generation)
        self._workers: dict[int, Worker] = {}
        self._measuring = Measuring(self)
        self._publisher = Publisher(
            self._population, self._workers, self._eventlog, self._measuring.tally
        )
        self._revision = Revision(
            settings, self._population, self.size, self.scale, self._eventlog.line
        )
        self._pipes = open_pipes(self)
        open_watch(self)
        self._on_end: list[Callable[[], object]] = []
        self._engine: _engine.Engine | None = None
        self._owner = Owner(self._forget)
        self._signals: Signals | None = None
        self._containment: Containment | None = None
        self._control: Control | None = None
        self._spawner: Spawner | None = None
        self._unit: Unit | None = None
        self._nursery: Nursery | None = None
        self._hint: Hint
        self._executor: Executor | None = None
        self._handlers: Handlers | None = None
        self._links: Links
        self._balance = ""
        self._on_fork: list[Callable[[], object]] = []
        self._may_upgrade = False
        self._upgrading: Upgrading
        self._heritage: Heritage | None = None  # of the master whose place this one takes
        self._given_fds: list[int] = []  # of who started us; they go on to who takes our place
        self._unneeded: tuple[str, ...] = ()  # variables that are not for workers
        self._may_fork = False  # the command line's privilege: its process is only a master
        self._keeps_terminal = False  # its worker has it (host/terminal.py)
        self._pump: Pump | None = None
        self._loop = None
        self.exit_code: int | None = None
        """What the command line exits with; None while the cluster lives."""

    # ---- life ------------------------------------------------------------------

    def _forget(self) -> None:
        """In a forked child: the cluster is its parent's."""
        if self._engine is not None:
            self._engine.abandon()
            for output in self._outputs:
                output.abandon()
            self._measuring.abandon()
            if self._control:
                self._control.listener.abandon()

    def start(self, *, signals: bool = False, subreaper: bool = False) -> None:
        """Spawn the workers and return; then drive `dispatch`.

        `signals`: handle the signals that `run` handles (main thread only).
        `subreaper`: adopt and reap orphans of the workers; only for a process
        that has no children of its own (prctl(2), PR_SET_CHILD_SUBREAPER).
        """
        if self._engine is not None or self.exit_code is not None:
            raise RuntimeError("the cluster was started before")
        self._owner = Owner(self._forget)
        engine = self._engine = _engine.Engine(subreaper)
        containment = Containment(engine, self._population, self._workers, self._eventlog)
        self._containment = containment
        self._pump = Pump(
            engine,
            self._population,
            containment,
            happened=self._happened,
            carry_out=self._carry_out,
            ended=self._end,
        )
        try:
            if hooks := open_hooks(self):
                self._outputs.insert(0, hooks)  # what they print at the end is logged
                self._pump.attend(hooks)
            for output in self._outputs:
                output.attach(self)
            self._eventlog.waits()
            left = self._heritage
            self._control = open_control(
                self,
                name_of(self._program.target),
                self._eventlog.warn,
                left["control"] if left else None,
            )
            if self._control:
                self._pump.attend(self._control.listener)
            if left:
                self._eventlog.goes_on()
            else:
                self._begin()
            if self._keeps_terminal:
                self._publisher.at_exit.append(Terminal(engine).ended)
            self._measuring.open(
                engine, self._pump, self._eventlog.line, left["metrics"] if left else None
            )
            identity = assume(engine, self._program, self.options, self._eventlog.line)
            if left:
                door, self._balance = left["door"], left["balance"]
                engine.balance(self.options.balance)
            else:
                door = choose(engine, identity.door, self._eventlog.warn)
                self._balance = balancing.choose(engine, self.options, self._eventlog.line)
            asking = prepare(
                engine, self._pump, self.options, self._population, self._eventlog, self._work
            )
            self._on_fork += [asking.abandon] if asking else []
            self._engine.flows_stay(self.options.drain_settle)
            self._engine.handover_idle(self.options.handover_idle)
            # A host's descriptors are the host's own.
            activation = os.environ if self._may_fork else {}
            self._unit = open_unit(self._population, self.options, activation, self._eventlog.warn)
            if left:
                given = succeeding.given(self, left)
            else:
                bind, warn = self.options.bind, self._eventlog.warn
                given = give(engine, bind, activation, warn, identity.owner)
            self._population.offered, self._unneeded = given.offered, given.unneeded
            self._program.change(dict.fromkeys(given.unneeded))
            if self._unit:
                self._on_fork.append(self._unit.close)
                self._unit.attend(self._pump, engine, given.restored, self.reload)
            self._spawner = Spawner(
                self._engine,
                self._program,
                door,
                may_fork=self._may_fork and not (asking and asking.tls),
                receives=self.options.door == "auto",
                rings=self.options.handover == "auto",
                output=self._pipes.open if self._pipes else None,
            )
            self._spawner.on_fork += self._on_fork
            self._nursery = self._spawner.nursery = nursery_for(
                self._engine,
                self._program,
                self.options,
                self._population,
                self._workers,
                self._eventlog,
                subreaper=subreaper,
                door=door,
                terminal=self._keeps_terminal,
            )
            self._hint = Hint(self._program, self.options, self._workers, self._eventlog)
            self._executor = Executor(
                self._engine, self._population, self._workers, self.options, self._eventlog, asking
            )
            self._handlers = Handlers(
                self._engine,
                self._population,
                self._workers,
                self.options,
                self._eventlog,
                self._publisher.message,
                OtherDoor(self._engine, self.options.door, self._spawner),
            )
            if signals or subreaper:
                self._take_signals(subreaper)
            self._upgrading = Upgrading(self, self._may_upgrade)
            self._pump.attend(self._upgrading)
        except BaseException as error:
            self._release()
            self._fall_silent()
            if isinstance(error, Refused):
                raise ClusterError(str(error)) from None
            raise
        self._make_room(self.options.workers)
        self._links = Links(self._program.cwd())
        if left:
            succeeding.go_on(self, left)
        else:
            self._population.start(time.monotonic())
        self._work()

    def _begin(self) -> None:
        """What is said first."""
        self._eventlog.begins(self._program, self._control)
        self._revision.starts()
        if nested := self._program.reloader():
            self._eventlog.warn(nested)
        for stranger in strangers(os.environ):
            self._eventlog.warn(stranger)

    def _take_signals(self, reaps: bool) -> None:
        if self._containment is not None:
            actions = SignalActions(self, self._eventlog.line, self._containment.signal)
            self._signals = Signals(self, self._alive(), actions.contained, reaps)

    def fileno(self) -> int:
        """Readable (epoll) whenever `dispatch` has something to do. Any thread
        may poll it."""
        return self._alive().fileno()

    def dispatch(self) -> None:
        """Handle what has happened, without blocking.

        Driven by `fileno()` being readable; an early call does no harm.
        """
        self._owner.check_idle()
        with Held():
            for _ in range(TURNS_PER_DISPATCH):
                if self._engine is None or not self._turn(0):
                    return

    def _make_room(self, workers: int) -> None:
        """Descriptors for all generations that may run at a time."""
        generations = self.options.max_draining + 2
        wanted = min(128 + workers * generations * DESCRIPTORS_EACH, DESCRIPTORS_MOST)
        if not self._alive().descriptors(wanted):
            self._eventlog.once("room", f"RLIMIT_NOFILE is low: up to {wanted} may be needed")

    # ---- what one can ask of it ----------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether a shutdown is under way."""
        return self._population.closing

    def shutdown(self, *, again: bool = False) -> None:
        """Gracefully: take no new connection, serve what waits, drain, end; after
        `shutdown_timeout` workers that are left are killed. `again`: those that have had
        the stop signal get it once more."""
        self._owner.check()
        if self._engine is not None:
            self._eventlog.closes(self._population)
            self._population.shutdown(time.monotonic(), again=again)
            self._work()

    def terminate(self, callback: Callable[[], object] | None = None) -> None:
        """At once: kill every worker, release every lane, remove all listeners.
        `callback` is called at the end."""
        self._owner.check()
        if callback is not None:
            self._on_end.append(callback)
        if self._engine is not None:
            self._population.terminate(time.monotonic())
            self._work()
        elif callback is not None:
            self._on_end.clear()
            callback()

    def scale(self, workers: int) -> None:
        """Have that many slots; the highest drain. Raises OptionError."""
        count = worker_count(workers)
        self._alive()
        self._make_room(count)
        why = self._population.scale(count, time.monotonic())
        if why:
            raise OptionError(f"workers: {count}: {why}")
        self._work()

    # ---- further descriptors -----------------------------------------------------------

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` from `dispatch` whenever `fd` is readable."""
        self._alive()
        if self._pump is not None:
            self._pump.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """Take a `watch` back, before closing the descriptor."""
        self._owner.check()
        if self._pump is not None:
            self._pump.unwatch(fd)

    def _turn(self, timeout: float | None) -> bool:
        self._alive()
        sinks = [output for output in self._outputs if isinstance(output, Sink)]
        with self._owner.busy():
            for sink in sinks:
                sink.gather()
            try:
                return self._pump is not None and self._pump.turn(timeout)
            finally:
                for sink in sinks:
                    sink.write_out()

    def _happened(self, kind: int, key: int, value: int, text: bytes, now: float) -> None:
        known = key in self._workers and key in self._population.members
        if self._nursery and key >= MOLDS:
            self._nursery.happened(kind, key, value, text, now)
        elif known and self._handlers is not None:
            self._handlers.happened(kind, key, value, text, now)

    def _carry_out(self, command: commands.Command, now: float) -> None:
        if isinstance(command, commands.Spawn):
            self._spawn(command, now)
        elif isinstance(command, commands.Notice):
            self._publisher.notice(command)
            (self._nursery or self._hint).noticed(command, now)
        elif self._nursery and self._nursery.cancels(command, now):
            pass
        elif self._executor is not None:
            self._executor.carry_out(command, now)

    def _end(self, code: int) -> None:
        self.exit_code = code
        self._release()
        self._publisher.give_up_waiting()
        self._publisher.tell(events.End(code))
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            self._publisher.emitter.guarded(callback)
        if self._loop is None:  # else tasks of callbacks may have something to tell
            self._fall_silent()

    def _fall_silent(self) -> None:
        for output in self._outputs:
            output.close(LAST_WORDS if self._may_fork else 0.0)

    def _release(self) -> None:
        if self._engine is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno())
        if self._signals:
            self._signals.close()
        self._measuring.close()
        if self._control:
            self._control.close()
        for output in self._outputs:
            output.detach()
        if self._pump:
            self._pump.stop()
        engine, self._engine = self._engine, None
        engine.close()
        for worker in self._workers.values():
            worker.alive = False

    # ---- spawning --------------------------------------------------------------------

    def _spawn(self, command: commands.Spawn, now: float) -> None:
        if self._spawner is None or self._population.cancelled(command.worker):
            return
        worker = Worker(command.worker, command.slot, command.generation, 0)
        self._workers[command.worker] = worker
        try:
            worker.pid = self._spawner.spawn(command, now)
        except OSError as error:
            self._population.spawn_failed(command.worker, error.strerror or str(error), now)
            self._workers.pop(command.worker, None)
