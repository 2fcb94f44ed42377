"""Signals of the master: which are handled, and how they arrive.

By ordinary handlers of module signal, with a descriptor that wakes the loop up: nothing is
blocked, so what a callback starts has a clean mask, and it is the same to us which thread
the kernel gives a signal to. A handler that the program itself has set runs instead of ours:
one set before, from `dispatch`, so it may call every method; one set later, at any point.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType

from .._engine import Engine
from ..base.watcher import Watcher
from .forks import living

HANDLED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Signals:
    """Delivers HANDLED to `act` (a number) until closed; in another thread than the main
    one, nothing. `reaps`: the engine hears of each SIGCHLD, and for that it must not be
    ignored."""

    def __init__(
        self, watcher: Watcher, engine: Engine, act: Callable[[int], None], reaps: bool
    ) -> None:
        self._act = act
        self._watcher = watcher
        self._engine = engine
        self._before: dict[int, object] = {}
        self._ends: tuple[int, int] | None = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handler = Waker(self._ends[1])
        watcher.watch(self._ends[0], self._readable)
        engine.signals((*HANDLED, signal.SIGCHLD) if reaps else HANDLED)
        living.add(self)
        for number in HANDLED:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup; of a C library
                self._take(number)
        if reaps and signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN):
            self._take(signal.SIGCHLD)
        self._handler.wake()

    def _take(self, number: int) -> None:
        self._before[number] = signal.signal(number, self._handler)
        signal.siginterrupt(number, False)

    def _readable(self) -> None:
        """One byte for each that has come."""
        if self._ends is None:
            return
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._ends[0], 4096):
                if self._ends is None:  # the cluster has ended meanwhile
                    return
                if number == signal.SIGCHLD:
                    self._engine.reap()
                elif signal.getsignal(number) is self._handler:
                    self._arrived(number)

    def _arrived(self, number: int) -> None:
        theirs = self._before[number]
        if callable(theirs) and theirs is not signal.default_int_handler:
            theirs(number, None)
        else:
            self._act(number)

    @property
    def waiting(self) -> bool:
        """Whether one has come that nobody has seen yet."""
        if self._ends is None:
            return False
        come = select.poll()
        come.register(self._ends[0], select.POLLIN)
        return bool(come.poll(0))

    def close(self) -> None:
        if self._ends is None:
            return
        self._watcher.unwatch(self._ends[0])
        self._restore(self._before)

    def _restore(self, before: dict[int, object]) -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is self._handler:
                signal.signal(number, handler)  # type: ignore[arg-type]
        self._handler.rest()
        living.discard(self)
        ends, self._ends = self._ends, None
        for end in ends or ():
            os.close(end)

    def forget(self) -> None:
        """In a forked child: its signals are its own."""
        self._restore({**self._before, signal.SIGCHLD: signal.SIG_DFL})


class Waker:
    """A handler: it runs between any two bytecodes of the main thread. The interpreter itself
    writes each signal's number to the wake-up descriptor; where a loop of the host has that,
    we do."""

    def __init__(self, end: int) -> None:
        self._end = end

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._is_ours():
            with contextlib.suppress(OSError):  # full: many wait already
                os.write(self._end, bytes([number]))

    def _is_ours(self) -> bool:
        """The interpreter tells only when another is set."""
        now = signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        if now not in (self._end, -1):
            signal.set_wakeup_fd(now)
        return now == self._end

    def wake(self) -> None:
        self._is_ours()

    def rest(self) -> None:
        now = signal.set_wakeup_fd(-1)
        if now not in (self._end, -1):
            signal.set_wakeup_fd(now)


def catches(pid: int, number: int) -> bool:
    """Whether that process has a handler for the signal (SigCgt, proc(5))."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except (OSError, ValueError):
        pass
    return False


def is_node(pid: int) -> bool:
    """Whether that process runs Node, which has a handler of its own for SIGTERM that only
    ends it: what SigCgt says of the program is nothing."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("node")
    except OSError:
        return False
