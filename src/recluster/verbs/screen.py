"""A terminal taken over for a while: the alternate screen, keys without Enter.

Owns the terminal's modes. Invariant: they are as before on every way out, an exception, a
signal that ends us and a stop by ^Z included. (Nobody can be told of SIGKILL; `reset` helps.)
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import time
import tty
from types import FrameType
from typing import Any

BEGIN = "\x1b[?1049h\x1b[?25l\x1b[2J"
END = "\x1b[?25h\x1b[?1049l"
HOME, TO_END_OF_LINE, TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
MARK, UNMARK = "\x1b[7m", "\x1b[27m"
KEYS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}
KEY = re.compile(r"\x1b[\[O][0-9;]*[ -~]|.", re.DOTALL)
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Ended(Exception):
    """A signal says that it is over; or the terminal is gone."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _ends(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


class Screen:
    def __init__(self, keys: int, out: int) -> None:
        self._keys = keys
        self._out = out
        self._saved: list[Any] | None = None
        self._before: dict[int, Any] = {}
        self._pressed: list[str] = []  # and not yet asked for
        self._wake: tuple[int, int] = (-1, -1)
        self._wakeup_before = -1

    def __enter__(self) -> Screen:
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        try:
            for number in ENDING:
                self._before[number] = signal.signal(number, _ends)
            self._before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
            self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
            self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
            self._take()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for number in self._before:  # a second one must not cut this short
            signal.signal(number, signal.SIG_IGN)
        self._give_back()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        for end in self._wake:
            os.close(end)

    def _take(self) -> None:
        self._saved = termios.tcgetattr(self._keys)
        tty.setcbreak(self._keys, termios.TCSADRAIN)  # ^C and ^Z stay signals
        self._write(BEGIN)

    def _give_back(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            with contextlib.suppress(OSError, Ended):
                self._write(END)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, saved)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """^Z: the shell gets its terminal back, and we ours when it goes on."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    # ---- out -------------------------------------------------------------------------

    def size(self) -> tuple[int, int]:
        """(columns, lines)."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns, lines = 0, 0
        return columns or 80, lines or 24

    def draw(self, lines: list[str], marked: frozenset[int]) -> None:
        """In one write, over what is there: nothing flickers. What is erased is erased before
        the text: behind a line that is as wide as the screen it would be its last letter."""
        told = []
        for at, line in enumerate(lines):
            clear = TO_END if at == len(lines) - 1 else TO_END_OF_LINE
            told.append(clear + (f"{MARK}{line}{UNMARK}" if at in marked else line))
        self._write(HOME + "\r\n".join(told))

    def _write(self, text: str) -> None:
        data = text.encode("ascii", "backslashreplace")
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:  # somebody has made it so for all who have it
                select.select([], [self._out], [])
            except OSError:
                raise Ended(signal.SIGHUP) from None

    # ---- in --------------------------------------------------------------------------

    def key(self, until: float) -> str | None:
        """The next one; None at the time, or when the size may be another."""
        if self._pressed:
            return self._pressed.pop(0)
        left = max(0.0, until - time.monotonic())
        ready, _, _ = select.select([self._keys, self._wake[0]], [], [], left)
        if self._wake[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
        if self._keys not in ready:
            return None
        try:
            data = os.read(self._keys, 64)
        except OSError:
            data = b""
        if not data:
            raise Ended(signal.SIGHUP)
        self._pressed = [KEYS.get(key, key) for key in KEY.findall(data.decode("latin-1"))]
        return self._pressed.pop(0)
