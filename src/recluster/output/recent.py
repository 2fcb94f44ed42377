"""The last lines of the log and of the workers, for `recluster logs`, and who follows them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .formats import Json

ROOM = 1 << 20  # bytes of lines, about
EACH = 200  # what a line takes beside its text

Fields = dict[str, Any]
Follower = Callable[[str], object]


class Recent:
    """`put` a worker's line; `put_own` one of the master's. Told as the log's JSON has them,
    which is made of them when somebody asks."""

    def __init__(self) -> None:
        self._lines: deque[tuple[float, int | bool, bytes, Fields]] = deque()
        self._size = 0
        self._format = Json()
        self._followers: dict[object, tuple[int | None, Follower]] = {}

    def put(self, now: float, line: bytes, fields: Fields, ends: bool) -> None:
        self._put(now, ends, line, fields)

    def put_own(self, now: float, level: int, text: str, fields: Fields) -> None:
        self._put(now, level, text.encode(errors="backslashreplace"), fields)

    def _put(self, now: float, how: int | bool, line: bytes, fields: Fields) -> None:
        entry = now, how, line, fields
        self._lines.append(entry)
        self._size += len(line) + EACH
        while self._size > ROOM:
            self._size -= len(self._lines.popleft()[2]) + EACH
        followers = [
            tell for slot, tell in self._followers.values() if slot in (None, fields["slot"])
        ]
        if followers:
            told = self._told(entry)
            for tell in followers:
                tell(told)

    def _told(self, entry: tuple[float, int | bool, bytes, Fields]) -> str:
        now, how, line, fields = entry
        if isinstance(how, bool):
            return self._format.output(line, fields, how, now).decode()
        return self._format.line(how, line.decode(), fields, now)

    def last(self, count: int, slot: int | None) -> list[str]:
        """Of that slot, or of all; the oldest first."""
        found: list[str] = []
        for entry in reversed(self._lines):
            if len(found) >= count:
                break
            if slot in (None, entry[3]["slot"]):
                found.append(self._told(entry))
        return found[::-1]

    # ---- for the master that takes this one's place -----------------------------------

    def carried(self) -> list[tuple[float, int | bool, str, str]]:
        """All lines, which are bytes; what is said with each as JSON can say it."""
        return [
            (now, how, line.decode("latin-1"), json.dumps(fields, default=str))
            for now, how, line, fields in self._lines
        ]

    def resume(self, before: Iterable[tuple[float, int | bool, str, str]]) -> None:
        """They go before what is here already."""
        here = self._lines
        self._lines, self._size = deque(), 0
        for now, how, line, fields in before:
            self._put(now, how, line.encode("latin-1"), json.loads(fields))
        for entry in here:
            self._put(*entry)

    def follow(self, who: object, slot: int | None, tell: Follower) -> None:
        self._followers[who] = slot, tell

    def unfollow(self, who: object) -> None:
        self._followers.pop(who, None)

    @property
    def followers(self) -> int:
        return len(self._followers)
