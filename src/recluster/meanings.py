"""What each signal to the master means."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from .checks import OptionError
from .signals import catches

if TYPE_CHECKING:
    from .cluster import Cluster


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Meanings:
    """Acts on the cluster, by its public methods; `line` tells why."""

    def __init__(self, cluster: Cluster, line: Callable[[str], object]) -> None:
        self._cluster = cluster
        self._line = line
        self._had_terminal = _has_terminal()
        self._interrupts = 0

    def act(self, number: int) -> None:
        cluster = self._cluster
        if number == signal.SIGHUP and self._had_terminal and not _has_terminal():
            self._line("the terminal was closed: shutting down")
            cluster.shutdown()
        elif number in (signal.SIGUSR2, signal.SIGHUP):
            cluster.reload()
        elif number == signal.SIGTERM:
            cluster.shutdown()
        elif number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
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
            for worker in cluster.workers():
                if catches(worker.pid, number):
                    cluster.signal(worker, number)
