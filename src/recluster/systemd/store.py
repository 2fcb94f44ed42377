"""Lanes in systemd's store of descriptors (FDSTORE=1, sd_pid_notify_with_fds(3)), so that the next
master finds what waits in them when this one is killed.

Owns which of them are there, and by what name. Where systemd has room for none nothing is sent:
`FDSTORE` (systemd 254) says how much there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .._engine import Engine
from ..population.state import Population
from .sdnotify import Notifier

RELOADS_MOST = 3  # for the sake of what is left
PREFIX = "recluster-lane-"


def room(environ: Mapping[str, str]) -> int:
    text = environ.get("FDSTORE", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def name_of(inode: int, note: str) -> str:
    return f"{PREFIX}{inode}-{note}" if note else f"{PREFIX}{inode}"


class Store:
    """`restored`: what was found there at the start, the name of each by its inode."""

    def __init__(
        self,
        engine: Engine,
        population: Population,
        notifier: Notifier,
        most: int,
        restored: Mapping[int, str],
        reload: Callable[[], object],
    ) -> None:
        self._engine = engine
        self._people = population
        self._notifier = notifier
        self._most = most
        self.kept = dict(restored)
        self._useless: set[int] = set()  # which the next master could not take
        self._left = bool(restored)  # some of them may have nobody
        self._reload = reload
        self._reloads = RELOADS_MOST

    def deadline(self) -> float | None:
        return None

    def tick(self, now: float) -> None:
        """Nothing here has a time."""

    def look(self) -> None:
        if self._left and self._is_complete():
            # The workers of one generation more take over what none has taken yet.
            self._left = self._engine.forsaken() > 0 and self._reloads > 0
            if self._left:
                self._reloads -= 1
                self._reload()
        now = {} if self._people.ended is not None else dict(self._engine.kept())
        for inode in self.kept.keys() - now.keys():
            self._notifier.send(["FDSTOREREMOVE=1", f"FDNAME={self.kept.pop(inode)}"])
        self._useless &= now.keys()
        for inode, fd in now.items():
            if inode not in self.kept and len(self.kept) < self._most:
                self._keep(inode, fd)

    def _keep(self, inode: int, fd: int) -> None:
        if inode in self._useless:
            return
        try:
            name = name_of(inode, self._engine.note(inode))
        except OSError:
            self._useless.add(inode)
            return
        self.kept[inode] = name
        self._notifier.send(["FDSTORE=1", f"FDNAME={name}"], fd)

    def _is_complete(self) -> bool:
        slots = [slot for slot in self._people.slots.values() if slot.wanted]
        return not self._people.reloading and bool(slots) and all(slot.serving for slot in slots)


def note_of(name: str) -> str | None:
    """What was noted with a descriptor of ours; None: it is not ours."""
    digits, _, note = name.removeprefix(PREFIX).partition("-")
    return note if name.startswith(PREFIX) and digits.isdecimal() else None
