"""How a Python worker ends: exit code, traceback, and its last line as the verdict.

Owns what is said to the master about it. "Nothing to run" is what python itself says when
the file or the module is not there: no other try can do better.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from types import TracebackType

LONGEST = 500
HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # all of recluster


def tell_master(channel: int, error: str, nothing: bool = False) -> None:
    """For the verdict of a reload."""
    said = {"cmd": "recluster.error", "error": error[:LONGEST], "nothing": nothing}
    with contextlib.suppress(OSError):
        os.write(channel, (json.dumps(said) + "\n").encode())


class NothingToRun(SystemExit):
    """What python says of FILE, with the code it ends with."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(code)
        self.text = text


def nothing_to_run(error: NothingToRun, channel: int) -> int:
    _say(f"{sys.executable}: {error.text}")
    tell_master(channel, error.text, nothing=True)
    return int(error.code or 0)


def exit_code(error: SystemExit, channel: int) -> int:
    if isinstance(error, NothingToRun):
        return nothing_to_run(error, channel)
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    text = str(error.code)
    nothing = _is_runpys(error.__traceback__)
    tell_master(channel, text.removeprefix(f"{sys.executable}: "), nothing)
    _say(text)
    return 1


def _say(text: str) -> None:
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr)


def _is_runpys(traceback: TracebackType | None) -> bool:
    """Raised by runpy, which has found no code, not by the program."""
    last = traceback
    while last and last.tb_next:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code.co_name == "_run_module_as_main"


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    """Without our frames."""
    while traceback and traceback.tb_frame.f_code.co_filename.startswith(HERE):
        traceback = traceback.tb_next
    return traceback


def last_line(error: BaseException) -> str:
    try:
        from traceback import format_exception_only

        return format_exception_only(type(error), error)[-1].strip()
    except Exception:  # the program's own traceback.py, say
        return f"{type(error).__name__}: {error}"


def show(error: BaseException) -> None:
    """As python does."""
    error.__traceback__ = _theirs(error.__traceback__)
    sys.last_type, sys.last_value = type(error), error
    sys.last_traceback = error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.excepthook(type(error), error, error.__traceback__)


def report(error: BaseException, channel: int) -> None:
    tell_master(channel, last_line(error))
    show(error)
