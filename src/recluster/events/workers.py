"""The events that are about one worker."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from ..base.levels import DEBUG, ERROR, INFO, WARNING
from ..base.states import State
from ..base.wording import seconds, size_text
from .event import INTERNAL, Event


class Online(Event, level=DEBUG):
    """Its process runs, and its door is open."""

    def line(self) -> str:
        return "started"


class Listening(Event, named=False):
    """It listens on `address`."""

    address: str

    @property
    def topic(self) -> str | None:
        return self.address

    def line(self) -> str:
        return f"listening on {self.address}"


class Ready(Event):
    """It serves, `seconds` after it was started."""

    seconds: float

    def line(self) -> str:
        return f"ready after {seconds(self.seconds)}"


class Hung(Event, level=WARNING):
    """For a second it has taken no connections, though `queued` wait."""

    queued: int

    def line(self) -> str:
        waits = "1 waits" if self.queued == 1 else f"{self.queued} wait"
        return f"hangs: takes no connections, {waits}"


class Takes(Event):
    """It takes connections again, after `seconds`."""

    seconds: float

    def line(self) -> str:
        return f"takes connections again after {seconds(self.seconds)}"


class Deaf(Event, level=WARNING):
    """It does not listen on `address` any more, and is replaced."""

    address: str

    def line(self) -> str:
        return f"no longer listens on {self.address}; to be replaced"


class Unseen(Event, level=WARNING):
    """It listens on `address`, and no door has seen it."""

    address: str

    def line(self) -> str:
        return (
            f"listens on {self.address} by a call that the door does not see "
            "(io_uring, a 32-bit program, a static one): not steered to, not kept by a reload"
        )


class Message(Event, level=DEBUG):
    """It has sent `message` on its channel."""

    message: Any


class Disconnect(Event):
    """It asks to be replaced."""

    def line(self) -> str:
        return "asks to be replaced"


class Recycle(Event):
    """It is replaced, its successor first, because of `why` ("rss", "lifetime" or "connections"):
    it has that `value`, of a `limit`."""

    why: str
    value: float
    limit: float

    def line(self) -> str:
        value, limit = self.value, self.limit
        told = {
            "rss": lambda: (
                f"has {size_text(value)} of memory, of {size_text(limit)} that it may have"
            ),
            "lifetime": lambda: f"has served for {seconds(value)}, of {seconds(limit)} that it may",
            "connections": lambda: f"has got {value} connections, of {limit} that it may get",
        }
        return f"{told[self.why]()}; to be replaced"


class Exit(Event):
    """It has ended: its last event. `code`, or `signal` by name ("SIGKILL"), and None for the
    other; it `lived` so many seconds; `error`: the last line of its traceback, if known;
    `next_try`: seconds until the slot has another, if it gets one; `asked`: it was stopped;
    `overdue`: it did not become ready in time."""

    code: int | None
    signal: str | None
    lived: float
    error: str | None = None
    overdue: bool = False
    asked: bool = False
    next_try: float | None = None
    was: State = field(default=State.SERVING, repr=False, metadata=INTERNAL)
    hint: str | None = field(default=None, repr=False, metadata=INTERNAL)

    @property
    def level(self) -> int:
        return INFO if self.asked else WARNING

    def line(self) -> str:
        how = f"killed by {self.signal}" if self.signal else f"exited with code {self.code}"
        text = f"{how} after {seconds(self.lived)}"
        if self.asked or self.was is State.KILLED:
            return f"{text}, as asked" if self.asked else text
        if self.was is State.STARTING or self.overdue:
            text += ", before it was ready"
        if self.error:
            text += f" ({self.error})"
        if self.next_try is not None:
            pause = self.next_try
            text += "; replaced at once" if pause < 0.05 else f"; next try in {pause:.1f} s"
        return text


# ---- only for the log ------------------------------------------------------------------


class Overdue(Event, level=WARNING, public=False):
    """It has not done in time what it must."""

    why: str

    def line(self) -> str:
        return self.why


class Relief(Event, level=WARNING, public=False):
    """A retired one died and left connections waiting."""

    queued: int

    def line(self) -> str:
        return f"left {self.queued} connections waiting; starting a worker for them"


class Dropped(Event, level=WARNING, public=False):
    """Connections that waited for it are lost."""

    queued: int

    def line(self) -> str:
        return f"{self.queued} connections that waited for it end with it"


class SpawnFailed(Event, level=ERROR, public=False, named=False):
    """The kernel has refused a process for `slot`."""

    slot: int
    error: str

    @property
    def topic(self) -> str | None:
        return "spawn"

    def line(self) -> str:
        return f"worker {self.slot}: cannot be spawned: {self.error}; retrying"
