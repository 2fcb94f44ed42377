"""Whether the preload library can be in a program: it must be loaded as we are.

A program of another loader (musl, another architecture) fails with a library of ours,
or says so on every start; a static one never sees it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys

_LOADER = 3  # PT_INTERP, elf(5)
_MOST = 4096


def _first_bytes(path: str, offset: int, count: int) -> bytes:
    """A FIFO, or what took its place since it was looked at, does not hold up the master."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.pread(fd, min(count, _MOST), offset)
    finally:
        os.close(fd)


def loader_of(path: str) -> bytes | None:
    """The path of its dynamic loader, of a script that of its interpreter; None for a
    static program and whatever else. Raises OSError if it cannot be read."""
    head = _first_bytes(path, 0, _MOST)
    if head.startswith(b"#!"):
        words = head[2:].splitlines()[0].split()
        return _loader_of_program(os.fsdecode(words[0])) if words else None
    return _loader_of_program(path)


def _loader_of_program(path: str) -> bytes | None:
    head = _first_bytes(path, 0, 64)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] != 2:  # of 64 bits
        return None
    order = "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(order + "Q", head, 32)
    size, count = struct.unpack_from(order + "HH", head, 54)
    entries = _first_bytes(path, table, size * count)
    for at in range(0, len(entries) - 55, max(size, 56)):
        (kind,) = struct.unpack_from(order + "I", entries, at)
        offset, length = (struct.unpack_from(order + "Q", entries, at + n)[0] for n in (8, 32))
        if kind == _LOADER:
            return _first_bytes(path, offset, length).rstrip(b"\0")
    return None


def loads_as_we(path: str) -> bool:
    """Whether a library for this interpreter loads into that program. False if in doubt."""
    try:
        ours = loader_of(sys.executable)
        return ours is not None and loader_of(path) == ours
    except (OSError, ValueError, OverflowError, struct.error):
        return False
