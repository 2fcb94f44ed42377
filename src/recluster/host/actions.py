"""What each signal to the master means."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..options.checks import OptionError
from .signals import catches

if TYPE_CHECKING:
    from ..cluster import Cluster


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class SignalActions:
    """Acts on the cluster, by its public methods; `line` tells why. What goes wrong
    inside is given to `contain`."""

    def __init__(
        self,
        cluster: Cluster,
        line: Callable[[str], object],
        contain: Callable[[str, Exception, float], None],
    ) -> None:
        self._cluster = cluster
        self._line = line
        self._contain = contain
        self._had_terminal = _has_terminal()
        self._interrupts = 0

    def contained(self, number: int) -> None:
        """`act`, of which nothing goes wrong for the master."""
        try:
            self.act(number)
        except Exception as error:
            self._contain(signal.Signals(number).name, error, time.monotonic())

    def act(self, number: int) -> None:
        cluster = self._cluster
        if number == signal.SIGHUP and self._had_terminal and not _has_terminal():
            self._line("the terminal was closed: shutting down")
            cluster.shutdown()
        elif number in (signal.SIGUSR2, signal.SIGHUP):
            cluster.reload()
        elif number == signal.SIGTERM:
            cluster.shutdown(again=True)
        elif number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1 or cluster.closing:
                cluster.terminate()
            else:
                cluster.shutdown()
        elif number == signal.SIGQUIT:
            cluster.terminate()
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            more = 1 if number == signal.SIGTTIN else -1
            try:
                cluster.scale(max(1, cluster.size() + more))
            except OptionError as error:
                self._line(str(error))
        elif number == signal.SIGUSR1:
            cluster.reopen()
            for worker in cluster.workers():
                if catches(worker.pid, number):
                    cluster.signal(worker, number)
