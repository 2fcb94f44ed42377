"""A small text file, read whole and never waited for."""

from __future__ import annotations

import os
import stat

from .checks import OptionError

MOST = 1 << 20  # bytes


def read_text(path: str, errors: str = "strict", shown: str = "") -> str:
    """Raises OptionError, which begins with the path, or what it is `shown` as."""
    shown = shown or path
    try:
        # A FIFO would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OptionError(f"{shown}: is not a regular file")
            data = file.read(MOST + 1)
    except OSError as error:
        raise OptionError(f"{shown}: {error.strerror}") from None
    if len(data) > MOST:
        raise OptionError(f"{shown}: is longer than {MOST} bytes")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OptionError(f"{shown}:{line}: is not UTF-8") from None
