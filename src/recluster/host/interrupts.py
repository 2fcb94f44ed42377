"""Ctrl-C for a program that has no handler of its own: between two turns, never within one.

The interpreter would raise KeyboardInterrupt between any two bytecodes of a turn, and what
the engine has just told (a worker's end, say) would be lost. While it waits in the kernel, a
signal that comes a moment before that would be seen with the next event, perhaps in hours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

from ..base.watcher import Watcher
from .forks import living
from .signals import Waker


class Held:
    """For what does not wait. Raises KeyboardInterrupt at its end, if one came."""

    def __init__(self) -> None:
        self._took = self._came = False

    def __enter__(self) -> None:
        if _are_ours():
            self._took = True
            signal.signal(signal.SIGINT, self._note)
            living.add(self)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def forget(self) -> None:
        """In a forked child: its Ctrl-C is its own."""
        took, self._took = self._took, False
        if took and signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        living.discard(self)
        self.forget()
        if self._came:
            raise KeyboardInterrupt


class Interrupts:
    """For who drives `watcher` turn by turn, and calls `check` after each."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._ends: tuple[int, int] | None = None
        self._came = False

    def __enter__(self) -> Interrupts:
        if _are_ours():
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._watcher.watch(ends[0], self._readable)
            except BaseException:
                os.close(ends[0])
                os.close(ends[1])
                raise
            self._ends, self._waker = ends, Waker(ends[1])
            self._waker.wake()
            signal.signal(signal.SIGINT, self._waker)
            signal.siginterrupt(signal.SIGINT, False)
            living.add(self)
        return self

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if self._ends is not None and signal.SIGINT in os.read(self._ends[0], 4096):
                self._came = True

    def check(self) -> None:
        """Raises KeyboardInterrupt once for those that have come."""
        came, self._came = self._came, False
        if came:
            raise KeyboardInterrupt

    def forget(self) -> None:
        """In a forked child: its Ctrl-C is its own."""
        ends, self._ends = self._ends, None
        if ends is None:
            return
        if signal.getsignal(signal.SIGINT) is self._waker:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._waker.rest()
        for end in ends:
            os.close(end)

    def __exit__(self, *_: object) -> None:
        living.discard(self)
        if self._ends is not None:
            self._watcher.unwatch(self._ends[0])
            self.forget()


def _are_ours() -> bool:
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
