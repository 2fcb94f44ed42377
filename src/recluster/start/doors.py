"""Which door works here: the choice at the start, and what is said when none does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .. import _engine
from ..child.launch import SHIM


class HasDoor(Protocol):
    """Who starts workers."""

    door: int


class ClusterError(RuntimeError):
    """The cluster cannot work here; the message says what is missing."""


NAMES = {_engine.NOTIFY: "notify", _engine.PRELOAD: "preload"}


def choose(engine: _engine.Engine, wanted: str, say: Callable[[str], None]) -> int:
    """NOTIFY or PRELOAD, opened. Raises ClusterError where neither can be.

    The seccomp door is tried for real, on a child (csrc/process/probe.c).
    """
    missing = None
    if wanted != "preload":
        refused = _engine.door_probe()
        if refused is None:
            return _engine.NOTIFY
        missing = f"{refused[0]}: {os.strerror(refused[1])}"
        if wanted == "notify":
            raise ClusterError(f"the seccomp door is refused here ({missing})")
    try:
        if not SHIM:
            raise OSError(2, "the preload library is not installed")
        engine.shim_open()
    except OSError as error:
        also = f"; nor is there seccomp notification ({missing})" if missing else ""
        raise ClusterError(f"no door for the workers: {error.strerror}{also}") from None
    if missing:
        say(
            f"seccomp notification is refused here ({missing}); workers get the preload "
            "library instead"
        )
    return _engine.PRELOAD


@dataclass(eq=False)
class OtherDoor:
    """What is left where a worker may not be looked into: it was root's and has dropped its
    rights, and the master lacks CAP_SYS_PTRACE (most containers)."""

    engine: _engine.Engine
    wanted: str
    spawner: HasDoor

    def open(self) -> bool:
        """From the next start on workers get the preload library; whether they do."""
        if self.spawner.door == _engine.PRELOAD:
            return True
        if self.wanted != "auto" or not SHIM:
            return False
        try:
            self.engine.shim_open()
        except OSError:
            return False
        self.spawner.door = _engine.PRELOAD
        return True
