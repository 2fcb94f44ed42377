"""The log: one line per lifecycle event, each a single write(2).

A line written whole is not cut by the workers' own output (pipe(7), PIPE_BUF).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from .lifecycle import State
from .options import Options

Line = Callable[[str], None]


def to_stderr(text: str) -> None:
    # Without a standard error there is nobody to tell.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.write(sys.stderr.fileno(), f"recluster: {text}\n".encode(errors="replace"))


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def seconds(value: float) -> str:
    """312 ms, 4.2 s: what one reads at a glance."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _how(details: dict[str, Any]) -> str:
    if details["signal"] is not None:
        return f"killed by {signal_name(details['signal'])}"
    return f"exited with code {details['code']}"


def exit_line(details: dict[str, Any]) -> str:
    text = f"{_how(details)} after {seconds(details['lived'])}"
    if details["asked"] or details["was"] is State.KILLED:
        return f"{text}, as asked" if details["asked"] else text
    if details["was"] is State.STARTING or details["overdue"]:
        text += ", before it was ready"
    if details["error"]:
        text += f" ({details['error']})"
    if details["next_try"] is not None:
        pause = details["next_try"]
        text += "; replaced at once" if pause < 0.05 else f"; next try in {pause:.1f} s"
    return text


def reload_line(details: dict[str, Any]) -> str:
    if not details["ok"]:
        return f"reload failed, nothing has changed: {details['why']}"
    text = f"reload: generation {details['generation']} serves after {seconds(details['seconds'])}"
    if details.get("came"):
        text += f"; now also on {', '.join(details['came'])}"
    if details.get("went"):
        text += f"; no longer on {', '.join(details['went'])}"
    return text


def hold_line(details: dict[str, Any]) -> str:
    where, time = details["address"], seconds(details["seconds"])
    if details["held"]:
        return f"nobody has listened on {where} for {time}: clients wait unanswered"
    return f"listening on {where} again after {time}: clients are answered"


class Story:
    """Turns notices into lines. `who` is "worker 2 (gen 3, pid 41)"."""

    def __init__(self, options: Options, line: Line) -> None:
        self._line = line
        self._options = options
        self._said: set[str] = set()

    def line(self, text: str) -> None:
        self._line(text)

    def once(self, topic: str, text: str) -> None:
        """For what would repeat while a shortage lasts; `over` ends it."""
        if topic not in self._said:
            self._said.add(topic)
            self._line(text)

    def over(self, topic: str) -> None:
        self._said.discard(topic)

    def tell(self, name: str, who: str, details: dict[str, Any]) -> None:
        if name == "ready":
            self._line(f"{who}: ready after {seconds(details['seconds'])}")
        elif name == "listening":
            self.once(details["address"], f"listening on {details['address']}")
        elif name == "exit":
            quiet = not self._options.log["respawns"] and not details["asked"]
            if not quiet:
                self._line(f"{who}: {exit_line(details)}")
        elif name == "disconnect":
            self._line(f"{who}: asks to be replaced")
        elif name == "deaf":
            self._line(f"{who}: no longer listens on {details['address']}; to be replaced")
        elif name == "hold":
            self._line(hold_line(details))
        elif name == "hung":
            waits = "1 waits" if details["queued"] == 1 else f"{details['queued']} wait"
            self._line(f"{who}: hangs: takes no connections, {waits}; others get the new ones")
        elif name == "takes":
            self._line(f"{who}: takes connections again after {seconds(details['seconds'])}")
        elif name == "overdue":
            self._line(f"{who}: {details['why']}")
        elif name == "relief":
            self._line(
                f"{who}: left {details['queued']} connections waiting; starting a worker for them"
            )
        elif name == "spawn_failed":
            why = f"cannot be spawned: {details['error']}; retrying"
            self.once("spawn", f"worker {details['slot']}: {why}")
        elif name == "online":
            self.over("spawn")
        elif name == "baking":
            self._line(
                f"generation {details['generation']} serves; the old one is kept for "
                f"{seconds(details['seconds'])}"
            )
        elif name == "canary":
            self._line(
                f"generation {details['generation']} is a canary: it gets {details['part']:.3g} "
                "of new connections until promote or rollback"
            )
        elif name == "hurried":
            self._line(
                f"more than {details['most']} generations drain: generation "
                f"{details['generation']} gets the stop signal now"
            )
        elif name == "gave_up":
            self._line(f"giving up: {details['failures']} workers in a row failed to become ready")
        elif name == "reload":
            self._line(reload_line(details))
