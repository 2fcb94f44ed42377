"""Forks of this process: whether it may be forked into a worker without exec, and what
happens in a child, whoever forked it.

A child of the host's has all that the master has, and is not the master: it must not act on
workers, keep their listeners open, or hold the guard's pipe, whose end is the master's death.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import get_ident
from typing import Protocol
from weakref import WeakSet


class Forgets(Protocol):
    @property
    def forget(self) -> Callable[[], None]:
        """In a forked child: close what is the parent's, act on nothing."""


living: WeakSet[Forgets] = WeakSet()


_masks: dict[int, set[int]] = {}


def _before() -> None:
    """A signal that comes to the child before it has forgotten would be lost in a handler
    of ours."""
    if living:
        _masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _in_parent() -> None:
    before = _masks.pop(get_ident(), None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child() -> None:
    for one in list(living):
        one.forget()
    living.clear()
    _in_parent()


# At the fork, for later the numbers may be those of other files.
os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def has_one_thread() -> bool:
    """Of several only the one that forks lives on in the child, and what the others had locked
    stays locked. The kernel counts them, for module `threading` knows neither those of C
    libraries nor those of `_thread`. False also where it cannot be known."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False
