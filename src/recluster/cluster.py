"""The cluster: the engine's events go to the population, its commands to the engine.

Owns the public API and everything with a side effect; decides nothing that
`population` can decide.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _engine, balancing, commands
from .checks import OptionError, canary_part, weights_of
from .control import Control, open_control
from .doors import ClusterError, choose
from .events import Callback
from .executor import Executor
from .handle import ReloadHandle
from .hearing import Hearing
from .inherit import give
from .launch import Program, Target
from .meanings import Meanings
from .options import Options
from .population import Population
from .signals import Signals
from .socketfile import Refused
from .spawner import Spawner
from .story import Story, to_stderr
from .telling import Telling
from .view import Worker

if TYPE_CHECKING:  # not for the master: its forked workers would find them imported
    import asyncio
    import logging

TURNS_PER_DISPATCH = 64
PUT_OFF_MOST = 8
SPAWNS_AT_A_TIME = 8
DESCRIPTORS_EACH = 8  # of a worker, while it runs


def _random() -> float:
    """Of [0, 1). Module `random` would have every forked worker seed it anew."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Cluster:
    """N copies of an unmodified server, supervised.

    `target` is a Python file or a command (a list of words); `module=` names a
    module as `python -m` would. Options: see the table in README.md; each may
    also come from RECLUSTER_<OPTION>. Raises OptionError (a ValueError) for a
    value that cannot be, ClusterError from `start` when neither door works, or
    the control socket is another master's.

    Everything happens in `dispatch`, in the thread that calls it: drive it by
    `run()`, `wait()`, `async with`, or by any loop that polls `fileno()` for
    reading and then calls `dispatch()`; nothing else is needed, deadlines
    included. No method may be called from another thread; from there use the
    loop's own `call_soon_threadsafe` or a signal. Callbacks run inside
    `dispatch` and may call every method.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | Sequence[str] | None = None,
        *,
        module: str | None = None,
        logger: logging.Logger | None = None,
        **options: Any,
    ) -> None:
        self.options = Options.make(options)
        self._program = Program(Target.of(target, module), self.options)
        self._program.check()
        self._story = Story(self.options, logger.info if logger else to_stderr)
        self._population = Population(self.options, _random)
        self._workers: dict[int, Worker] = {}
        self._telling = Telling(self._population, self._workers, self._story)
        self._on_end: list[Callable[[], object]] = []
        self._engine: _engine.Engine | None = None
        self._signals: Signals | None = None
        self._control: Control | None = None
        self._spawner: Spawner | None = None
        self._executor: Executor | None = None
        self._hearing: Hearing | None = None
        self._balance = ""
        self._on_fork: list[Callable[[], object]] = []
        self._may_fork = False  # the command line's privilege: its process is only a master
        self._watched: dict[int, Callable[[], object]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._working = False
        self._put_off = 0
        self.exit_code: int | None = None
        """What the command line exits with; None while the cluster lives."""

    # ---- life ------------------------------------------------------------------

    def start(self, *, signals: bool = False, subreaper: bool = False) -> None:
        """Spawn the workers and return; then drive `dispatch`.

        `signals`: handle the signals that `run` handles (main thread only).
        `subreaper`: adopt and reap orphans of the workers; only for a process
        that has no children of its own (prctl(2), PR_SET_CHILD_SUBREAPER).
        """
        if self._engine is not None or self.exit_code is not None:
            raise RuntimeError("the cluster was started before")
        self._engine = _engine.Engine(subreaper)
        try:
            self._control = open_control(self, self._story.line)
            door = choose(self._engine, self.options.door, self._story.line)
            self._balance = balancing.choose(self._engine, self.options, self._story.line)
            self._engine.flows_stay(self.options.drain_settle)
            # A host's descriptors are the host's own.
            activation = os.environ if self._may_fork else {}
            unneeded = give(self._engine, self.options.bind, activation, self._story.line)
            self._program.hide(unneeded)
            self._spawner = Spawner(
                self._engine,
                self._program,
                door,
                may_fork=self._may_fork,
                receives=self.options.door == "auto",
            )
            self._spawner.on_fork += self._on_fork
            self._executor = Executor(
                self._engine, self._population, self._workers, self.options, self._story
            )
            self._hearing = Hearing(
                self._engine,
                self._population,
                self._workers,
                self.options,
                self._story,
                self._telling.emit,
            )
            if signals or subreaper:
                meanings = Meanings(self, self._story.line)
                self._signals = Signals(self, self._engine, meanings.act)
            if self._control:
                self._spawner.on_fork.append(self._control.abandon)
        except Refused as error:
            self._release()
            raise ClusterError(str(error)) from None
        except BaseException:
            self._release()
            raise
        self._make_room(self.options.workers)
        self._population.start(time.monotonic())
        self._work()

    def run(self) -> int:
        """`start` with signals, supervise, return the exit code at the end.

        0 after a shutdown or terminate, 1 if it gave up. In a thread other than
        the main one signals stay as they are.
        """
        if self._engine is None:
            in_main = threading.current_thread() is threading.main_thread()
            self.start(signals=in_main, subreaper=self._may_fork)
        self.wait()
        return self.exit_code or 0

    def wait(self, timeout: float | None = None) -> bool:
        """Drive the cluster until it has ended, `timeout` seconds at most."""
        return self._drive(lambda: self.exit_code is not None, timeout)

    def fileno(self) -> int:
        """Readable (epoll) whenever `dispatch` has something to do. Any thread
        may poll it."""
        return self._alive().fileno()

    def dispatch(self) -> None:
        """Handle what has happened, without blocking.

        Driven by `fileno()` being readable; an early call does no harm.
        """
        for _ in range(TURNS_PER_DISPATCH):
            if self._engine is None or not self._turn(0):
                return

    def _make_room(self, workers: int) -> None:
        """Descriptors for all generations that may run at a time."""
        generations = self.options.max_draining + 2
        wanted = 128 + workers * generations * DESCRIPTORS_EACH
        if not self._alive().descriptors(wanted):
            self._story.once("room", f"RLIMIT_NOFILE is low: up to {wanted} may be needed")

    def _drive(self, done: Callable[[], bool], timeout: float | None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not done() and self._engine is not None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self._turn(left)
        return done()

    # ---- what one can ask of it ----------------------------------------------------

    def reload(
        self,
        callback: Callable[[ReloadHandle], object] | None = None,
        *,
        canary: float | None = None,
    ) -> ReloadHandle:
        """Replace all workers by new ones of a new generation.

        Returns at once. New connections go to the new workers from one instant
        on, when all are ready; if one fails, nothing changes. `callback` gets
        the handle when it is done. With `canary` the new generation gets that
        part of new connections, between 0 and 1, and the old one the rest, until
        `promote` or `rollback`; a crash of a new worker rolls back. Raises
        OptionError.
        """
        part = None if canary is None else canary_part(canary)
        if part is not None and self.options.surge:
            raise OptionError("canary: it goes with surge 0 only")
        self._alive()
        handle = ReloadHandle(self._drive, self._decide)
        handle.number = self._population.reload(time.monotonic(), part)
        reloading = self._population.reloading
        handle.generation = reloading.generation if reloading else 0
        self._telling.expect(handle, callback)
        self._work()
        return handle

    def promote(self) -> None:
        """Give the generation on probation (canary, bake) all connections. Raises
        RuntimeError if there is none."""
        self._decide("promote", None)

    def rollback(self) -> None:
        """Give the old generation all connections again. Raises RuntimeError if
        there is no reload to take back."""
        self._decide("rollback", None)

    def _decide(self, what: str, handle: ReloadHandle | None) -> None:
        self._alive()
        decide = getattr(self._population, what)
        why = decide(time.monotonic(), handle.number if handle else None)
        if why:
            raise RuntimeError(why)
        self._work()

    def weights(self, weights: Mapping[int, float]) -> None:
        """With balance="weighted": give these slots these weights, from the next
        connection on. Raises OptionError."""
        if self.options.balance != "weighted":
            raise OptionError(f"weights: they go with balance weighted, not {self.options.balance}")
        try:
            wanted = weights_of(weights)
        except ValueError as error:
            raise OptionError(f"weights: {weights!r} {error}") from None
        self._alive()
        why = self._population.weigh(wanted)
        if why:
            raise OptionError(f"weights: {why}")
        self._work()

    def shutdown(self) -> None:
        """Gracefully: take no new connection, serve what waits, drain, end."""
        if self._engine is not None:
            self._population.shutdown(time.monotonic())
            self._work()

    def terminate(self, callback: Callable[[], object] | None = None) -> None:
        """At once: kill every worker, release every lane, remove all listeners.
        `callback` is called at the end."""
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
        count = Options.make({"workers": workers}).workers
        self._alive()
        self._make_room(count)
        why = self._population.scale(count, time.monotonic())
        if why:
            raise OptionError(f"workers: {count}: {why}")
        self._work()

    def workers(self) -> list[Worker]:
        """All, including not yet ready and retiring ones, by slot and age."""
        alive = [worker for worker in self._workers.values() if worker.alive]
        return sorted(alive, key=lambda worker: (worker.id, worker.key))

    def active_workers(self) -> dict[int, Worker | None]:
        """Slot -> the ready worker that serves there, or None."""
        active: dict[int, Worker | None] = {}
        for index, slot in sorted(self._population.slots.items()):
            if slot.wanted:
                active[index] = self._workers[slot.serving.id] if slot.serving else None
        return active

    def size(self) -> int:
        """How many slots are wanted: what `scale` was last told, or `workers`."""
        slots = self._population.slots.values()
        return sum(slot.wanted and not slot.surplus for slot in slots)

    def signal(self, worker: Worker, number: int) -> bool:
        """Send a signal to the worker's process. False if it is gone."""
        return self._engine is not None and worker.alive and self._engine.signal(worker.key, number)

    def send(self, worker: Worker, message: Any) -> bool:
        """Queue a message for the worker. False if its channel is closed, or full
        because it does not read. Raises TypeError for what JSON cannot say."""
        line = json.dumps(message).encode()
        return self._engine is not None and worker.alive and self._engine.send(worker.key, line)

    def broadcast(self, message: Any) -> int:
        """`send` to all workers; returns to how many it could be queued."""
        return sum(self.send(worker, message) for worker in self.workers())

    def on(self, event: str, callback: Callback) -> None:
        """Call `callback` with an `Event` at each: online, listening, ready, hung,
        takes, deaf, message, disconnect, exit, hold, canary, reload, end."""
        self._telling.emitter.on(event, callback)

    def off(self, event: str, callback: Callback) -> None:
        """Take an `on` back."""
        self._telling.emitter.off(event, callback)

    # ---- context managers ------------------------------------------------------------

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Shuts down gracefully; at once if an exception is on its way."""
        if kind is None:
            self.shutdown()
        else:
            self.terminate()
        self.wait()

    async def __aenter__(self) -> Cluster:
        """Starts, and is driven by the running asyncio loop."""
        import asyncio

        self.start()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.fileno(), self.dispatch)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        import asyncio

        if self._engine is None:
            return
        ended = asyncio.Event()
        self._on_end.append(ended.set)
        if kind is None:
            self.shutdown()
        else:
            self.terminate()
        if self._engine is not None:
            await ended.wait()

    # ---- further descriptors -----------------------------------------------------------

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` from `dispatch` whenever `fd` is readable."""
        self._alive().watch(fd)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Take a `watch` back, before closing the descriptor."""
        if self._watched.pop(fd, None) is not None and self._engine is not None:
            self._engine.unwatch(fd)

    # ---- one turn --------------------------------------------------------------------

    def _alive(self) -> _engine.Engine:
        if self._engine is None:
            raise RuntimeError("the cluster is not running")
        return self._engine

    def _turn(self, timeout: float | None) -> bool:
        """One look at the engine; False if there was nothing. Events come before
        the clock, so a master that was stopped for a while does not take for
        late what has long arrived."""
        events = self._alive().wait(timeout)
        if not events:
            return False
        due = self._hear(events)
        if self._engine is None:
            return True
        # The clock last: alone, or after a few turns that were full of events.
        self._put_off = self._put_off + 1 if due else self._put_off
        if due and (len(events) == 1 or self._put_off > PUT_OFF_MOST):
            self._put_off = 0
            self._population.tick(time.monotonic())
        self._work()
        return True

    def _hear(self, events: list[_engine.Event], nested: bool = False) -> bool:
        """Whether the deadline was among them. `nested`: between two commands, where
        whoever watches a descriptor may be the one that caused them."""
        due = False
        for kind, key, value, text in events:
            if kind == _engine.DEADLINE:
                due = True
            elif kind == _engine.SIGNAL and self._signals:
                self._signals.arrived(value)
            elif kind == _engine.READABLE:
                if value in self._watched and not nested:  # else: it stays readable
                    self._watched[value]()
            elif key in self._workers and self._hearing:
                self._hearing.happened(kind, key, value, text or b"", time.monotonic())
                self._work()
            if self._engine is None:
                break
        return due

    def _work(self) -> None:
        """Carry out the population's commands, those they cause included."""
        if self._working or self._engine is None:
            return
        self._working = True
        try:
            while batch := self._population.take():
                for command in batch:
                    self._carry_out(command)
        finally:
            self._working = False
        if self._population.ended is not None:
            self._end(self._population.ended)
        elif self._engine is not None:
            self._engine.deadline(self._population.deadline())

    def _carry_out(self, command: commands.Command) -> None:
        engine, now = self._alive(), time.monotonic()
        if isinstance(command, commands.Spawn):
            self._spawn(command, now)
            # The first of many stand in bind already. (A deadline that is heard
            # here is set again after the commands.)
            if command.worker % SPAWNS_AT_A_TIME == 0:
                self._hear(engine.wait(0), nested=True)
        elif isinstance(command, commands.Notice):
            self._telling.notice(command)
        elif self._executor is not None:
            self._executor.carry_out(command, now)

    def _end(self, code: int) -> None:
        self.exit_code = code
        self._release()
        self._telling.emit("end", 0, {"code": code})
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            self._telling.emitter.guarded(callback)

    def _release(self) -> None:
        if self._engine is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno())
        if self._signals:
            self._signals.close()
        if self._control:
            self._control.close()
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
            worker.pid = self._spawner.spawn(command)
        except OSError as error:
            self._population.spawn_failed(command.worker, error.strerror or str(error), now)
            self._workers.pop(command.worker, None)
