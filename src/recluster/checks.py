"""What a value of an option may be: from a Python value or its text to what is kept. Pure.

Each raises ValueError (or TypeError) saying what it must be. Durations are seconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

LOG_TOPICS = ("respawns",)


class OptionError(ValueError):
    """An option has a value it cannot have; the message names both."""


def whole(least: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, str):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return value

    return check


def seconds(value: object) -> float:
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number of seconds")
    if not 0 <= value <= 10**9:
        raise ValueError("must be a number of seconds, 0 or more")
    return float(value)


def seconds_or_none(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return seconds(value)


def quiet(value: object) -> float | None:
    """None stands for `timeout`."""
    return None if value is None or value == "timeout" else seconds(value)


def one_of(*choices: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def stop_signal(value: object) -> int:
    """A number, or a name with or without SIG."""
    try:
        if isinstance(value, str) and not value.isdigit():
            name = value.upper()
            return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
        return int(signal.Signals(int(value)))  # type: ignore[call-overload]
    except (KeyError, ValueError, TypeError):
        raise ValueError("must be the name or number of a signal") from None


def truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in ("1", "0", "yes", "no", "true", "false", "on", "off"):
        raise ValueError("must be yes or no")
    return word in ("1", "yes", "true", "on")


def log_topics(value: object) -> dict[str, bool]:
    """A mapping, a truth value for all topics, or "topic=yes,topic=no"."""
    topics = dict.fromkeys(LOG_TOPICS, True)
    if value is None:
        return topics
    pairs: list[tuple[Any, ...]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str) and "=" in value:
        pairs = [tuple(part.split("=", 1)) for part in value.split(",")]
    else:
        return dict.fromkeys(LOG_TOPICS, truth(value))
    for topic, wanted in pairs:
        if topic not in topics:
            raise ValueError(f"has no topic {topic!r} (there is {', '.join(LOG_TOPICS)})")
        topics[topic] = truth(wanted)
    return topics


def weights_of(value: object) -> dict[int, float]:
    """Slot -> weight, of a mapping or "0=3,1=0.5". Raises ValueError."""
    if value is None:
        return {}
    pairs: list[tuple[Any, ...]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str):
        pairs = [tuple(part.split("=", 1)) for part in value.split(",")]
    else:
        raise ValueError("must be SLOT=WEIGHT, or a mapping")
    found: dict[int, float] = {}
    for pair in pairs:
        try:
            slot, weight = pair
            if isinstance(slot, (float, bool)) or isinstance(weight, bool):
                raise ValueError
            slot, weight = int(slot), float(weight)
        except (TypeError, ValueError):
            raise ValueError("must be SLOT=WEIGHT, both numbers") from None
        if not 0 <= slot < 65536 or not 0 <= weight <= 10**9:
            raise ValueError("must be SLOT=WEIGHT, a slot and a number, 0 or more")
        found[slot] = weight
    return found


def canary_part(value: object) -> float:
    """The part of new connections that a canary gets. Raises OptionError."""
    try:
        part = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        part = 0.0
    if isinstance(value, bool) or not 0 < part < 1:
        raise OptionError(f"canary: {value!r} must be a number between 0 and 1")
    return part


def words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ValueError("must be a list of strings")
    return tuple(os.fspath(item) for item in value)


def environment(value: object) -> dict[str, str | None]:
    """NAME -> value; None takes the variable away."""
    if value is None:
        return {}
    pairs: list[tuple[Any, ...]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str):
        pairs = [tuple(value.split("=", 1))] if "=" in value else [(value, None)]
    else:
        pairs = [tuple(item.split("=", 1)) for item in value]  # type: ignore[attr-defined]
    found: dict[str, str | None] = {}
    for pair in pairs:
        if len(pair) != 2 or not pair[0] or "=" in pair[0] or "\0" in f"{pair[0]}{pair[1]}":
            raise ValueError("must be NAME=VALUE")
        found[str(pair[0])] = None if pair[1] is None else str(pair[1])
    return found


def directory(value: object) -> str | None:
    if value is None:
        return None
    path = os.fspath(value)  # type: ignore[call-overload]
    if not os.path.isdir(path):
        raise ValueError("is not a directory")
    return str(path)


def control_path(value: object) -> str | None:
    """A path, "auto" for the default one; None or "none": no socket."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    path = os.fspath(value)  # type: ignore[call-overload]
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("must be a path, auto or none")
    return path


def reason(error: Exception) -> str:
    text = str(error)
    if "invalid literal" in text:
        return "must be a whole number"
    if "could not convert" in text:
        return "must be a number of seconds"
    return text


def split_address(text: str) -> tuple[str, str, int]:
    """("unix", PATH, 0) or ("tcp", HOST, PORT), of what --bind takes."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path or len(os.fsencode(path)) > 107:
            raise ValueError("must have a path of at most 107 bytes behind unix:")
        return "unix", path, 0
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("must have brackets around an IPv6 address")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    return "tcp", host, int(port)


def addresses(value: object) -> tuple[str, ...]:
    """A list of them; a string is split at white space and commas."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise ValueError("must be a list of addresses")
    for one in value:
        split_address(one)
    return tuple(value)
