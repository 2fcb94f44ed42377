"""Who drives a cluster: itself until something has come (`run`, `wait`, `with`), or the asyncio
loop of the program (`async with`). In a loop that runs, nothing waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import loops
from .interrupts import Held, Interrupts
from .signals import Signals

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from typing_extensions import Self

    from .._engine import Engine
    from ..master.containment import Containment
    from ..master.publisher import Publisher
    from ..master.pump import Pump
    from ..output.eventlog import EventLog
    from .owner import Owner


class Driving:
    """What a Cluster is made of, here its parts by name only."""

    exit_code: int | None
    _engine: Engine | None
    _owner: Owner
    _pump: Pump | None
    _publisher: Publisher
    _eventlog: EventLog
    _signals: Signals | None
    _containment: Containment | None
    _loop: asyncio.AbstractEventLoop | None
    _may_fork: bool
    _on_end: list[Callable[[], object]]

    if TYPE_CHECKING:

        def start(self, *, signals: bool = False, subreaper: bool = False) -> None: ...
        def shutdown(self, *, again: bool = False) -> None: ...
        def terminate(self, callback: Callable[[], object] | None = None) -> None: ...
        def dispatch(self) -> None: ...
        def fileno(self) -> int: ...
        def watch(self, fd: int, callback: Callable[[], object]) -> None: ...
        def unwatch(self, fd: int) -> None: ...
        def _turn(self, timeout: float | None) -> bool: ...
        def _fall_silent(self) -> None: ...
        def _take_signals(self, reaps: bool) -> None: ...

    def _alive(self) -> Engine:
        """Raises RuntimeError where it does not run, or is another's (host/owner.py)."""
        self._owner.check()
        if self._engine is None:
            raise RuntimeError("the cluster is not running")
        return self._engine

    def _work(self) -> None:
        if self._pump is not None:
            with self._owner.busy():
                self._pump.work()

    def run(self) -> int:
        """`start` with signals, supervise, return the exit code at the end.

        0 after a shutdown or terminate, 1 if it gave up. In a thread other than
        the main one signals stay as they are.
        """
        loops.refuse()
        in_main = threading.current_thread() is threading.main_thread()
        if self._engine is None:
            self.start(signals=in_main, subreaper=self._may_fork)
        elif in_main and self._signals is None:  # started by `with`
            self._take_signals(reaps=False)
        self.wait()
        return self.exit_code or 0

    def wait(self, timeout: float | None = None) -> bool:
        """Drive the cluster until it has ended, `timeout` seconds at most. Raises
        RuntimeError in a callback, and where an asyncio loop runs."""
        return self._drive(lambda: self.exit_code is not None, timeout)

    def _drive(self, done: Callable[[], bool], timeout: float | None) -> bool:
        self._owner.check_idle()
        loops.refuse()
        self._publisher.emitter.refuse_coroutines()
        until = None if timeout is None else time.monotonic() + timeout
        if done() or self._engine is None:  # it has ended: there is nothing to be woken by
            return done()
        with Interrupts(self) as interrupts:
            while not done() and self._engine is not None:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._turn(left)
                interrupts.check()
        return done()

    def __enter__(self) -> Self:
        """Starts. Raises RuntimeError where an asyncio loop runs."""
        loops.refuse()
        try:
            with Held():
                self.start()
        except KeyboardInterrupt:
            if self._engine is not None:
                self._end_now()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Shuts down gracefully (after Ctrl-C too, until the second); at once if an Exception
        is on its way."""
        if not self._owner.is_here:
            return
        try:
            with Held():
                self._leave(kind)
            self.wait()
        except KeyboardInterrupt:
            self._end_now()
            raise

    def _end_now(self) -> None:
        with Held():
            self.terminate()
        self.wait()

    async def __aenter__(self) -> Self:
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
        """As `with` does. Ctrl-C, or who cancels the task, has it drain; a second time: at once."""
        import asyncio

        if not self._owner.is_here:
            return
        try:
            self._leave(kind)
            await self.ended()
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.terminate()
            await self.ended()
            raise
        await self._publisher.emitter.tasks.finish()
        self._fall_silent()

    def _leave(self, kind: type[BaseException] | None) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.terminate()
        else:
            self.shutdown()

    async def ended(self) -> int:
        """In asyncio: until the cluster has ended; returns its exit code."""
        if self._engine is not None:
            end = loops.Flag()
            self._on_end.append(end.set)
            await end
        return self.exit_code or 0
