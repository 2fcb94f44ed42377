"""top: a master and its workers, live; and the keys that restart, drain and reload."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ..control.asking import ask
from ..control.masters import Failed
from .asked import Parser, seconds, speak_plainly
from .screen import Ended, Screen
from .tables import plain
from .topview import Frame, frame

DELAY = 1.0  # seconds
PLAIN_SIZE = (120, 1000)
MOVES = {"j": 1, "down": 1, "k": -1, "up": -1}
SLOT_WISHES = {"r": "restart", "d": "drain", "u": "resume"}
RELOAD = "R"


def _parser(prog: str, master: int | None) -> Parser:
    name = "" if master else " [NAME]"
    made = Parser(
        prog=f"{prog} top",
        usage=f"{prog} top{name} [--delay S] [--once] [--control PATH]",
        description="Each slot's pid, generation, state, age, CPU, memory, connections, queue, "
        "accepted connections per second, restarts and last exit, again and again. Without a "
        "terminal: once.",
        allow_abbrev=False,
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    made.add_argument(
        "--delay",
        metavar="S",
        type=seconds,
        default=DELAY,
        help=f"seconds between two looks [{DELAY:g}]",
    )
    made.add_argument("--once", action="store_true", help="print it once, with rates, and end")
    made.add_argument("--control", metavar="PATH", help="the control socket of the master")
    return made


class Asked:
    """The master that was meant at first, also when others come."""

    def __init__(self, master: str | int | None, path: str | None, timeout: float) -> None:
        self._master = master
        self._path = path
        self._timeout = timeout

    def status(self) -> dict[str, Any]:
        """Raises Failed."""
        answer = self.tell({"cmd": "status"})
        status: dict[str, Any] = answer["status"]
        if self._master is None and self._path is None:
            self._master = status["pid"]
        return status

    def tell(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises Failed, also for a master that refuses."""
        answer = ask(request, self._master, self._path, self._timeout)
        if "error" in answer:
            raise Failed(plain(answer["error"]), 1)
        return answer


class Live:
    """One screen: what is shown, which slot is selected, what was asked for."""

    def __init__(self, asked: Asked, first: dict[str, Any], delay: float) -> None:
        self._asked = asked
        self._now = first
        self._before: dict[str, Any] | None = None
        self._delay = delay
        self._selected = first["slots"][0]["slot"] if first["slots"] else 0
        self._note = ""
        self._wish: dict[str, Any] | None = None  # waits for a y

    def run(self, screen: Screen) -> None:
        """Until q. Raises Failed at the master's end."""
        next_look = time.monotonic() + self._delay
        while True:
            self._draw(screen)
            key = screen.key(next_look)
            if key == "q":
                return
            if key is not None:
                self._pressed(key)
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + self._delay

    def _draw(self, screen: Screen) -> None:
        width, height = screen.size()
        made = frame(self._now, self._before, width, height, self._selected, self._note)
        screen.draw(made.lines[:height], made.marked)

    def _look(self) -> None:
        try:
            status = self._asked.status()
        except Failed as failure:
            if failure.code != 1:
                raise
            self._note = str(failure)  # it may be stopped, or busy: it is asked again
            return
        self._before, self._now = self._now, status

    def _pressed(self, key: str) -> None:
        wish, self._wish = self._wish, None
        self._note = ""
        if wish is not None:
            if key == "y":
                self._tell(wish)
            return
        slots = [slot["slot"] for slot in self._now["slots"]]
        if key in MOVES and slots:
            at = slots.index(self._selected) if self._selected in slots else 0
            self._selected = slots[max(0, min(len(slots) - 1, at + MOVES[key]))]
        elif key in SLOT_WISHES:
            self._wish = {"cmd": SLOT_WISHES[key], "slot": self._selected}
            self._note = f"{SLOT_WISHES[key]} slot {self._selected}? y: yes, else: no"
        elif key == RELOAD:
            self._wish = {"cmd": "reload"}
            self._note = "reload: new workers in all slots? y: yes, else: no"

    def _tell(self, wish: dict[str, Any]) -> None:
        what = wish["cmd"] + (f" slot {wish['slot']}" if "slot" in wish else "")
        try:
            self._asked.tell(wish)
            self._note = f"{what}: on its way"
        except Failed as failure:
            if failure.code != 1:
                raise
            self._note = f"{what}: {failure}"


def _once(asked: Asked, first: dict[str, Any], delay: float) -> Frame:
    time.sleep(delay)
    made = frame(asked.status(), first, *PLAIN_SIZE, -1)
    return Frame(made.lines[:-3])


def main(verb: str, words: list[str], prog: str = "recluster", master: int | None = None) -> int:
    """Returns the exit code."""
    speak_plainly()
    made = _parser(prog, master)
    given = made.parse_known_intermixed(words)
    named = master is not None or given.control is not None
    if len(given.words) > (0 if named else 1):
        made.error(f"{given.words[-1]!r} is one word too many")
    name = master or (given.words[0] if given.words else None)
    asked = Asked(name, given.control, max(1.0, given.delay))
    live = sys.stdin.isatty() and sys.stdout.isatty() and not given.once
    try:
        first = asked.status()
        if not live:
            print("\n".join(_once(asked, first, given.delay).lines), flush=True)
            return 0
        with Screen(sys.stdin.fileno(), sys.stdout.fileno()) as screen:
            Live(asked, first, given.delay).run(screen)
        return 0
    except Failed as failure:
        print(f"{prog}: {failure}", file=sys.stderr)
        return failure.code
    except Ended as end:
        return 128 + end.number
    except KeyboardInterrupt:
        return 0
