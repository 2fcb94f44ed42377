"""What a client that asks for `logs` wants, and what it is told beside the lines."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..options.checks import OptionError

FOLLOWERS_MOST = 4
FOLLOWED_MOST = 1 << 18  # bytes that wait for one who follows
LINES_MOST = 65535


@dataclass(frozen=True)
class Wanted:
    lines: int
    slot: int | None
    follow: bool

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Wanted:
        """Raises OptionError."""
        lines, slot = request.get("lines", 100), request.get("slot")
        for name, value in (("lines", lines), ("slot", 0 if slot is None else slot)):
            if type(value) is not int or not 0 <= value <= LINES_MOST:
                raise OptionError(f"{name}: {value!r} must be a whole number")
        return cls(lines, slot, request.get("follow") is True)


def lost_line(count: int) -> bytes:
    said = {"event": "lost", "level": "warning", "lines": count, "slot": None}
    said["message"] = f"{count} lines lost: they came faster than they were read"
    return json.dumps(said).encode() + b"\n"


def unread() -> str:
    """What to do instead, of a master that does not read what workers write."""
    places = []
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            places.append(os.readlink(f"/proc/self/fd/{fd}"))
    where = " and ".join(dict.fromkeys(places))
    return (
        f"its workers write to {where or 'nowhere'}, and it does not read that: start it with "
        "--prefix to have `logs`; under systemd, journalctl -u UNIT"
    )
