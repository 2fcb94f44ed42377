"""Who drives a cluster: itself until something has come (`run`, `wait`, `with`), or the asyncio
loop of the program (`async with`). In a loop that runs, nothing waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..host import loops
from ..host.interrupts import Held
from . import starting
from .wishes import Wishes

if TYPE_CHECKING:
    from typing_extensions import Self


class Driving(Wishes):
    @property
    def exit_code(self) -> int | None:
        """What the command line exits with; None while the cluster lives."""
        return self._core.exit_code

    def run(self) -> int:
        """`start` with signals, supervise, return the exit code at the end.

        0 after a shutdown or terminate, 1 if it gave up. In a thread other than
        the main one signals stay as they are.
        """
        loops.refuse()
        in_main = threading.current_thread() is threading.main_thread()
        core = self._core
        if core.engine is None:
            starting.start(core, signals=in_main, subreaper=core.may_fork)
        elif in_main and core.signals is None:  # started by `with`
            starting.take_signals(core, reaps=False)
        self.wait()
        return self.exit_code or 0

    def wait(self, timeout: float | None = None) -> bool:
        """Drive the cluster until it has ended, `timeout` seconds at most. Raises
        RuntimeError in a callback, and where an asyncio loop runs."""
        return self._core.drive(lambda: self.exit_code is not None, timeout)

    def __enter__(self) -> Self:
        """Starts. Raises RuntimeError where an asyncio loop runs."""
        loops.refuse()
        try:
            with Held():
                starting.start(self._core, signals=False, subreaper=False)
        except KeyboardInterrupt:
            if self._core.engine is not None:
                self._end_now()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Shuts down gracefully (after Ctrl-C too, until the second); at once if an Exception
        is on its way."""
        if not self._core.owner.is_here:
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

        starting.start(self._core, signals=False, subreaper=False)
        self._core.loop = asyncio.get_running_loop()
        self._core.loop.add_reader(self._core.alive().fileno(), self._core.dispatch)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """As `with` does. Ctrl-C, or who cancels the task, has it drain; a second time: at once."""
        import asyncio

        if not self._core.owner.is_here:
            return
        try:
            self._leave(kind)
            await self.ended()
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.terminate()
            await self.ended()
            raise
        await self._core.publisher.emitter.tasks.finish()
        self._core.fall_silent()

    def _leave(self, kind: type[BaseException] | None) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.terminate()
        else:
            self.shutdown()

    async def ended(self) -> int:
        """In asyncio: until the cluster has ended; returns its exit code."""
        if self._core.engine is not None:
            end = loops.Flag()
            self._core.on_end.append(end.set)
            await end
        return self.exit_code or 0
