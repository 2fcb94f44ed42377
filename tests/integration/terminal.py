"""A terminal for programs that take one over: what they write, as the screen that it makes."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from harness import ENVIRONMENT, GENEROUS

SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Screen:
    """Of what is written only the sequences that ours know; others are an error."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.rows = [[" "] * width for _ in range(height)]
        self.marked = set()
        self.row = self.column = 0
        self.alternate, self.cursor, self._mark = False, True, False

    def take(self, text):
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = SEQUENCE.match(text, at)
                assert found, repr(text[at : at + 20])
                self._do(*found.groups())
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, letter):
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self.row = min(self.row + 1, self.height - 1)
        else:
            assert letter.isprintable(), repr(letter)
            assert self.column < self.width, f"a line is too wide: {self.text()}"
            self.rows[self.row][self.column] = letter
            if self._mark:
                self.marked.add(self.row)
            self.column += 1

    def _do(self, private, number, what):
        if private:
            assert what in "hl" and number in ("1049", "25"), (number, what)
            if number == "1049":
                self.alternate = what == "h"
            else:
                self.cursor = what == "h"
        elif what == "H":
            self.row = self.column = 0
            self.marked.clear()
        elif what == "K":
            self._clear(self.row, self.column)
        elif what == "J":
            self._clear(self.row, 0 if number == "2" else self.column)
            for row in range(0 if number == "2" else self.row + 1, self.height):
                self._clear(row, 0)
        else:
            assert what == "m" and number in ("7", "27"), (number, what)
            self._mark = number == "7"

    def _clear(self, row, column):
        self.rows[row][column:] = [" "] * (self.width - column)

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.rows).rstrip() + "\n"


class Terminal:
    """A program on a terminal of that size."""

    def __init__(self, *words, width, height=24, cwd=None, env=None):
        self.ours, self.theirs = pty.openpty()
        self.resize(width, height, tell=False)
        self.before = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recluster", *map(str, words)],
            stdin=self.theirs, stdout=self.theirs, stderr=subprocess.PIPE, cwd=cwd, text=True,
            env={**ENVIRONMENT, **(env or {})}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
        self._rest = ""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.ours)
        os.close(self.theirs)

    def resize(self, width, height, tell=True):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        self.screen = Screen(width, height)
        if tell:
            self.screen.alternate, self.screen.cursor = True, False

    def press(self, keys):
        os.write(self.ours, keys.encode())

    def read(self, timeout):
        """Take in what comes within this time; False if nothing does."""
        if not select.select([self.ours], [], [], timeout)[0]:
            return False
        text = self._rest + os.read(self.ours, 1 << 16).decode()
        # A sequence that is cut in two waits for its other half.
        cut = re.search(r"\x1b(\[[0-9;?]*)?$", text)
        self._rest = text[cut.start() :] if cut else ""
        self.screen.take(text[: cut.start()] if cut else text)
        return True

    def shows(self, condition, timeout=GENEROUS):
        """Until the screen's text fulfils it; returns the text."""
        deadline = time.monotonic() + timeout
        while not condition(self.screen.text()):
            left = deadline - time.monotonic()
            assert left > 0, f"not shown in time:\n{self.screen.text()}"
            if not self.read(min(left, 1.0)):
                assert self.process.poll() is None, self.process.stderr.read()
        while self.read(0.0):
            pass
        return self.screen.text()

    def ends(self, timeout=GENEROUS):
        """The exit code; what was written has been taken."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self.read(0.05)
        while self.read(0.0):
            pass
        return self.process.returncode

    def is_as_before(self):
        """Modes, cursor and screen are the shell's again."""
        modes = termios.tcgetattr(self.theirs) == self.before
        return modes and not self.screen.alternate and self.screen.cursor
