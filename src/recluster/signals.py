"""Signals of the master: which are handled, and how they arrive.

In a single-threaded program they are blocked and read from the engine's
signalfd. With other threads that cannot work (the kernel gives a signal to any
thread that has not blocked it), so there Python's own handlers write to a
wake-up descriptor. In both, a handler that the program itself has set runs
instead of ours.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from ._engine import Engine

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


class Watcher(Protocol):
    """What a Cluster offers."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...

    def unwatch(self, fd: int) -> None: ...


class Signals:
    """Delivers HANDLED to `act` (a number) until closed."""

    def __init__(self, watcher: Watcher, engine: Engine, act: Callable[[int], None]) -> None:
        self._act = act
        self._watcher = watcher
        self._before: dict[int, object] = {}
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._wakeup = -1
        self._pending: list[int] = []
        if threading.active_count() == 1:
            engine.signals(HANDLED)
        elif threading.current_thread() is threading.main_thread():
            self._by_python()

    def _by_python(self) -> None:
        self._pipe = socket.socketpair()
        for end in self._pipe:
            end.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1].fileno(), warn_on_full_buffer=False)
        self._watcher.watch(self._pipe[0].fileno(), self._readable)
        for number in HANDLED:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = signal.signal(number, self._handler)

    def _handler(self, number: int, frame: FrameType | None) -> None:
        """Runs between any two bytecodes: remember only. The wake-up descriptor
        makes the turn come that acts."""
        self._pending.append(number)

    def _readable(self) -> None:
        """The wake-up descriptor was written to, and Python has run the handlers."""
        if self._pipe is None:
            return
        with contextlib.suppress(BlockingIOError):
            self._pipe[0].recv(4096)
        while self._pending:
            self._act(self._pending.pop(0))

    def arrived(self, number: int) -> None:
        """From the signalfd."""
        handler = signal.getsignal(number)
        if handler is signal.SIG_IGN:  # nohup
            return
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, None)
        else:
            self._act(number)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            self._watcher.unwatch(self._pipe[0].fileno())
            for end in self._pipe:
                end.close()
            self._pipe = None


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
