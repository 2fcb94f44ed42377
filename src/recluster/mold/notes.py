"""What a worker imports, noted where its mold can read it.

Owns memory that the mold shares with its workers, and these with what they fork: each process
has a region. A name is noted when its import *begins*, for in this order they can be imported
again (leaves first, half of a package is not there yet); and sys.path, where the program has
changed it. As a finder it finds nothing.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from _thread import allocate_lock

from .plan import Step

REGIONS, REGION = 32, 1 << 17
HEAD = 16  # when it was taken (ns), and how long it is
NOT_THEIRS = frozenset({"__main__", "__mp_main__"})


class Notes:
    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, REGIONS * REGION)
        self._region: int | None = None
        self._path: list[str] = []
        self._cwd = ""

    # ---- in a worker -------------------------------------------------------------------

    def begin(self) -> None:
        self._path, self._cwd = list(sys.path), os.getcwd()
        self._anew()
        os.register_at_fork(after_in_child=self._anew)
        sys.meta_path.insert(0, self)

    def _anew(self) -> None:
        self._region, self._lock = None, allocate_lock()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in NOT_THEIRS:
            return
        with self._lock:
            if sys.path != self._path:
                self._path = list(sys.path)
                self._note("\0" + "\0".join(map(self._relative, self._path)))
            self._note(name)

    def _relative(self, path: str) -> str:
        """The next generation's directory may be another one."""
        inside = path == self._cwd or path.startswith(self._cwd + os.sep)
        return "." + path[len(self._cwd) :] if inside else path

    def _take(self) -> int | None:
        """A region that is free. Pids of siblings follow each other, so two that look at the
        same time look at different ones first."""
        for offset in range(REGIONS):
            at = (os.getpid() + offset) % REGIONS * REGION
            if not any(self._memory[at : at + HEAD]):
                self._memory[at : at + 8] = time.monotonic_ns().to_bytes(8, "little")
                return at
        return None

    def _note(self, text: str) -> None:
        if self._region is None:
            self._region = self._take()
        if self._region is None:
            return
        at = self._region
        length = int.from_bytes(self._memory[at + 8 : at + HEAD], "little")
        data = text.encode(errors="surrogateescape") + b"\n"
        if HEAD + length + len(data) > REGION or b"\n" in data[:-1]:
            return
        begin = at + HEAD + length
        self._memory[begin : begin + len(data)] = data
        self._memory[at + 8 : at + HEAD] = (length + len(data)).to_bytes(8, "little")

    # ---- in the mold -------------------------------------------------------------------

    def read(self) -> list[Step]:
        """Of all processes, the oldest first; each name once."""
        regions = []
        for at in range(0, REGIONS * REGION, REGION):
            taken = int.from_bytes(self._memory[at : at + 8], "little")
            length = int.from_bytes(self._memory[at + 8 : at + HEAD], "little")
            if taken:
                regions.append((taken, self._memory[at + HEAD : at + HEAD + length]))
        lines: dict[str, None] = {}
        for _, data in sorted(regions):
            lines.update(dict.fromkeys(data.decode(errors="surrogateescape").splitlines()))
        return [line[1:].split("\0") if line[0] == "\0" else line for line in lines]
