"""How a worker that a mold has forked ends: as an interpreter, but for its memory.

To free what it shares with the mold would be to copy it: 30 to 60 MiB, and 60 to 140 ms of
CPU. So the interpreter finalizes as ever until its last exit handler, which is ours, for it
was registered first. Of what freeing does, two things can be seen: destructors of what is
in `__main__` run, and a file that the program has left open is written out. Both are done
here, and then the process ends. Where an agent's handler was there still before (coverage,
OpenTelemetry), the interpreter ends in its own way.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys

from .. import _engine

WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)

_code: list[int] = []  # of the program that has ended


def ends_with(code: int) -> None:
    _code.append(code)


def open_writers() -> list[io.IOBase]:
    """Text before the buffer that it writes to. Of what is frozen nothing is found. By its type:
    `isinstance` asks for `__class__`, and some objects answer that with code of their own."""
    found: list[io.IOBase] = [one for one in gc.get_objects() if issubclass(type(one), WRITERS)]
    found.sort(key=lambda one: not isinstance(one, io.TextIOWrapper))
    return found


def flush(writers: list[io.IOBase]) -> None:
    for one in writers:
        with contextlib.suppress(Exception):
            if not one.closed:
                one.flush()


def _standard_is_out() -> bool:
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except Exception:
        return False
    return True


def _clear_main() -> None:
    """As the interpreter does it: names with one underscore first."""
    names = vars(sys.modules["__main__"])
    for private in (True, False):
        for name in list(names):
            if (name[:1] == "_" and name[1:2] != "_") is private and name != "__builtins__":
                names[name] = None
    gc.collect()


def last() -> None:
    """The exit handler. Without a return code of the program, or where there is no writing to
    its standard output, which the interpreter has an exit code for, it does nothing."""
    if not _code or not _standard_is_out():
        return
    # Threads that are left (daemons) would see their globals go; the interpreter halts them.
    if len(sys._current_frames()) == 1:
        _clear_main()
        _standard_is_out()
    flush(open_writers())
    _engine.leave(_code[0] & 0xFF)
