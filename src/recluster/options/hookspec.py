"""What --on may be: pairs of event and command. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..events import NAMES
from .checks import text

Wanted = tuple[tuple[str, str], ...]


def wanted(value: object) -> Wanted:
    """Pairs of event and command: EVENT=COMMAND, a list of such or of pairs, or a mapping."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        pairs = [(name, one) for name, ones in value.items() for one in _each(ones)]
    else:
        pairs = [_pair(one) for one in ([value] if isinstance(value, str) else _each(value))]
    return tuple((_event(name), _command(one)) for name, one in pairs)


def _each(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _pair(value: object) -> tuple[Any, Any]:
    if isinstance(value, str) and "=" in value:
        name, _, command = value.partition("=")
        return name, command
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value[0], value[1]
    raise ValueError("must be EVENT=COMMAND")


def _event(name: object) -> str:
    if name not in NAMES:
        from ..base.nearest import nearest

        close = nearest(name, NAMES) if isinstance(name, str) else None
        more = f"; did you mean {close}?" if close else f" (there is {', '.join(NAMES)})"
        raise ValueError(f"has no event {name!r}{more}")
    return str(name)


def _command(value: object) -> str:
    command = text(value)
    if not command.strip():
        raise ValueError("must be EVENT=COMMAND: there is no command")
    return command
