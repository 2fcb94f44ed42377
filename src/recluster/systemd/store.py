"""Lanes in systemd's store of descriptors (FDSTORE=1, sd_pid_notify_with_fds(3)), so that the next
master finds what waits in them when this one is killed.

Owns which of them are there, and by what name. Where systemd has room for none nothing is sent:
`FDSTORE` (systemd 254) says how much there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


@dataclass(eq=False)
class Store:
    """`restored`: what was found there at the start, the name of each by its inode."""

    engine: Engine
    people: Population
    notifier: Notifier
    most: int
    restored: Mapping[int, str]
    reload: Callable[[], object]

    def __post_init__(self) -> None:
        self.kept = dict(self.restored)
        self._useless: set[int] = set()  # which the next master could not take
        self._left = bool(self.restored)  # some of them may have nobody
        self._reloads = RELOADS_MOST

    def deadline(self) -> float | None:
        return None

    def tick(self, now: float) -> None:
        """Nothing here has a time."""

    def look(self) -> None:
        if self._left and self._is_complete():
            # The workers of one generation more take over what none has taken yet.
            self._left = self.engine.forsaken() > 0 and self._reloads > 0
            if self._left:
                self._reloads -= 1
                self.reload()
        now = {} if self.people.ended is not None else dict(self.engine.kept())
        for inode in self.kept.keys() - now.keys():
            self.notifier.send(["FDSTOREREMOVE=1", f"FDNAME={self.kept.pop(inode)}"])
        self._useless &= now.keys()
        for inode, fd in now.items():
            if inode not in self.kept and len(self.kept) < self.most:
                self._keep(inode, fd)

    def _keep(self, inode: int, fd: int) -> None:
        if inode in self._useless:
            return
        try:
            name = name_of(inode, self.engine.note(inode))
        except OSError:
            self._useless.add(inode)
            return
        self.kept[inode] = name
        self.notifier.send(["FDSTORE=1", f"FDNAME={name}"], fd)

    def _is_complete(self) -> bool:
        slots = [slot for slot in self.people.slots.values() if slot.wanted]
        return not self.people.reloading and bool(slots) and all(slot.serving for slot in slots)


def note_of(name: str) -> str | None:
    """What was noted with a descriptor of ours; None: it is not ours."""
    digits, _, note = name.removeprefix(PREFIX).partition("-")
    return note if name.startswith(PREFIX) and digits.isdecimal() else None
