"""What each signal to the master means."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..options.checks import OptionError
from .asked import Asked
from .signals import catches


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@dataclass(eq=False)
class SignalActions:
    """Has the master act, as it is `asked`; `line` tells why. What goes wrong
    inside is given to `contain`."""

    asked: Asked
    line: Callable[[str], object]
    contain: Callable[[str, Exception, float], None]
    _had_terminal: bool = field(default_factory=_has_terminal, init=False)
    _interrupts: int = field(default=0, init=False)

    def contained(self, number: int) -> None:
        """`act`, of which nothing goes wrong for the master."""
        try:
            self.act(number)
        except Exception as error:
            self.contain(signal.Signals(number).name, error, time.monotonic())

    def act(self, number: int) -> None:
        asked = self.asked
        if number == signal.SIGHUP and self._had_terminal and not _has_terminal():
            self.line("the terminal was closed: shutting down")
            asked.shutdown()
        elif number in (signal.SIGUSR2, signal.SIGHUP):
            asked.reload()
        elif number == signal.SIGTERM:
            asked.shutdown(again=True)
        elif number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1 or asked.closing:
                asked.terminate()
            else:
                asked.shutdown()
        elif number == signal.SIGQUIT:
            asked.terminate()
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            more = 1 if number == signal.SIGTTIN else -1
            try:
                asked.scale(max(1, asked.size() + more))
            except OptionError as error:
                self.line(str(error))
        elif number == signal.SIGUSR1:
            asked.reopen()
            for worker in asked.workers():
                if catches(worker.pid, number):
                    asked.signal(worker, number)
