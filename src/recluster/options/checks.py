"""What a value of an option may be: from a Python value or its text to what is kept. Pure.

Each raises ValueError (or TypeError) saying what it must be. Durations are seconds.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..base.text import one_line

LOG_TOPICS = ("respawns",)
WORKERS_MOST = 1 << 16  # RC_SLOTS_MAX
COUNT_MOST = 10**9  # seconds too: what C's integers and sums of them hold
DIGITS_MOST = 100
SHOWN_MOST = 200  # signs of a value in a message
AUTO = "auto"  # of `control`: at its usual place


class OptionError(ValueError):
    """An option has a value it cannot have; the message names both."""


def _shown(said: str) -> str:
    said = one_line(said)
    return said if len(said) <= SHOWN_MOST else f"{said[:SHOWN_MOST]}..."


def refused(source: str, value: object, error: Exception) -> OptionError:
    """What is said of a value that a check has refused, on one line of bounded length."""
    try:
        what = repr(value)
    except ValueError:  # a number of more digits than Python prints
        what = "a number"
    return OptionError(f"{source}: {_shown(what)} {_shown(reason(error))}")


def text(value: object) -> str:
    """A path or a word, which the kernel will get as such."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ValueError("must be text, not bytes" if isinstance(value, bytes) else "must be text")
    if "\0" in value:
        raise ValueError("must have no null character")
    return value


def whole(least: int, most: int = COUNT_MOST) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, str):
            value = int(value) if len(value) < DIGITS_MOST else most + 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number of at least {least}")
        if value > most:
            raise ValueError(f"must be a whole number of at most {most}")
        return value

    return check


def worker_count(value: object) -> int:
    """Of `scale`. Raises OptionError."""
    try:
        return whole(1, WORKERS_MOST)(value)
    except ValueError as error:
        raise refused("workers", value, error) from None


def seconds(value: object) -> float:
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number of seconds")
    if not 0 <= value <= COUNT_MOST:
        raise ValueError(f"must be a number of seconds from 0 to {COUNT_MOST}")
    return float(value)


def seconds_or_none(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return seconds(value)


def quiet(value: object) -> float | None:
    """None stands for `timeout`."""
    return None if value is None or value == "timeout" else seconds(value)


@dataclass(frozen=True)
class ReadyUrl:
    text: str
    tls: bool
    host: str
    path: str

    def __str__(self) -> str:
        return self.text

    @property
    def request(self) -> bytes:
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: recluster\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode()


def ready_url(value: object) -> ReadyUrl | None:
    """/PATH, https:/PATH, or with the Host that the server wants: http://HOST/PATH."""
    if value is None or isinstance(value, ReadyUrl):
        return value
    wanted = ValueError("must be /PATH, https:/PATH or http(s)://HOST/PATH")
    if not isinstance(value, str):
        raise wanted
    found = re.fullmatch(r"(?:(https?):)?(?://([A-Za-z0-9.:\[\]_-]+))?(/[!-~]*)", value)
    if not found or (found[2] and not found[1]):
        raise wanted
    return ReadyUrl(value, found[1] == "https", found[2] or "localhost", found[3])


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
        return int(signal.Signals(whole(1)(value)))
    except (KeyError, ValueError):
        raise ValueError("must be the name or number of a signal") from None


def truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in ("1", "0", "yes", "no", "true", "false", "on", "off"):
        raise ValueError("must be yes or no")
    return word in ("1", "yes", "true", "on")


def patterns(value: object) -> tuple[str, ...]:
    """Of a list, or of a text with commas."""
    if value is None:
        return ()
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise ValueError("must be patterns")
    return tuple(part for one in given for part in one.split(",") if part)


def watched(value: object) -> tuple[str, ...]:
    """Paths; none for None or "no", and the working directory for "yes"."""
    given = value if isinstance(value, list | tuple) else [False if value is None else value]
    paths: list[str] = []
    for one in given:
        if one is True or one in ("yes", "true"):
            paths.append(".")
        elif one is False or one in ("no", "false", "none"):
            paths.clear()
        elif isinstance(one, str | os.PathLike) and os.fspath(one):
            paths.append(os.fsdecode(one))
        else:
            raise ValueError("must be paths, or no")
    return tuple(paths)


def file_path(value: object) -> str | None:
    """Absolute, as it was meant when it was said."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not (path := os.fspath(value)):
        raise ValueError("must be a path")
    return os.path.abspath(os.fsdecode(path))


def log_topics(value: object) -> dict[str, bool]:
    """A mapping, a truth value for all topics, or "topic=yes,topic=no"."""
    topics = dict.fromkeys(LOG_TOPICS, True)
    if value is None:
        return topics
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str) and "=" in value:
        pairs = [part.partition("=")[::2] for part in value.split(",")]
    else:
        try:
            return dict.fromkeys(LOG_TOPICS, truth(value))
        except ValueError:
            known = ", ".join(f"{topic}=yes" for topic in LOG_TOPICS)
            raise ValueError(f"must be yes, no or topics ({known})") from None
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
            if isinstance(slot, (float, bool, bytes)) or isinstance(weight, (bool, bytes)):
                raise ValueError
            slot, weight = int(slot), float(weight)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("must be SLOT=WEIGHT, both numbers") from None
        if not 0 <= slot < WORKERS_MOST or not 0 <= weight <= 10**9:
            raise ValueError("must be SLOT=WEIGHT, a slot and a number, 0 or more")
        found[slot] = weight
    return found


def canary_part(value: object) -> float:
    """The part of new connections that a canary gets. Raises OptionError."""
    try:
        part = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        part = 0.0
    if isinstance(value, (bool, bytes)) or not 0 < part < 1:
        raise refused("canary", value, ValueError("must be a number between 0 and 1"))
    return part


def words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ValueError("must be a list of strings")
    return tuple(text(item) for item in value)


def _value_of_variable(value: object) -> str:
    return str(value) if isinstance(value, (int, float)) else text(value)


def paths(value: object) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        value = (value,)
    found = words(value)
    if not all(found) or "\0" in "".join(found):
        raise ValueError("must be paths")
    return found


def environment(value: object) -> dict[str, str | None]:
    """NAME -> value; None takes the variable away."""
    if value is None:
        return {}
    wanted = ValueError("must be NAME=VALUE, a list of them, or a mapping")
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, bytes) or not hasattr(value, "__iter__"):
        raise wanted
    else:
        pairs = []
        for item in [value] if isinstance(value, str) else list(value):
            if not isinstance(item, str):
                raise wanted
            name, has_value, new = item.partition("=")
            pairs.append((name, new if has_value else None))
    found: dict[str, str | None] = {}
    for name, new in pairs:
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise wanted
        found[name] = None if new is None else _value_of_variable(new)
    return found


def directory(value: object) -> str | None:
    if value is None:
        return None
    path = text(value)
    if not os.path.isdir(path):
        raise ValueError("is not a directory")
    return path


def control_path(value: object) -> str | None:
    """A path, "auto" for the default one; None or "none": no socket."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    path = text(value)
    if not path:
        raise ValueError("must be a path, auto or none")
    return path


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def master_name(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not NAME.fullmatch(value) or value.isdecimal():
        raise ValueError("must be letters, digits, . _ or -, at most 64, and not only digits")
    return value


AUTO_MODULES = "*"  # no module's name


def preloaded(value: object) -> tuple[str, ...]:
    """Names of modules; none is none; AUTO_MODULES for `auto`: whatever the program imports."""
    if value is None or value == "none":
        return ()
    names = value.replace(",", " ").split() if isinstance(value, str) else list(words(value))
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError("must be names of modules, with commas between them")
    return tuple(AUTO_MODULES if name == "auto" else name for name in names)


def reason(error: Exception) -> str:
    said = str(error)
    if "invalid literal" in said:
        return "must be a whole number"
    if "could not convert" in said:
        return "must be a number of seconds"
    return said


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
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not digits or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    if not host:  # servers differ in what they mean by it
        raise ValueError(f"must say where: 0.0.0.0:{port}, or [::]:{port} for IPv6 too")
    return "tcp", host, int(port)


@dataclass(frozen=True)
class Bindable:
    """`host` None: any."""

    host: str | None
    port: int

    def __str__(self) -> str:
        if self.host is None:
            return str(self.port)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bindable(value: object) -> tuple[Bindable, ...]:
    """A string is split at white space and commas."""
    if value is None:
        return ()
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of ports or addresses")
    found: list[Bindable] = []
    for one in value:
        if isinstance(one, Bindable):  # checked before
            found.append(one)
        elif str(one).isascii() and str(one).isdigit() and 0 < int(one) < 65536:
            found.append(Bindable(None, int(one)))
        else:
            kind, host, port = split_address(str(one))
            if kind != "tcp":
                raise ValueError("must be PORT, HOST:PORT or [IPV6]:PORT")
            found.append(Bindable(_literal(host), port))
    return tuple(found)


def _literal(host: str) -> str:
    """What a worker asks for is an address, whatever name it has for it."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(f"has {host!r}, which must be an address and not a name") from None


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
