"""What a client of the control socket may tell the cluster to do with slots, or to end.

Each takes the request and returns the answer. Raises OptionError or RuntimeError: what was
asked for cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..host.asked import Asked
from ..options.checks import OptionError, whole

Answer = dict[str, Any]


def _number(request: Mapping[str, Any], key: str, least: int) -> int:
    try:
        return whole(least)(request.get(key))
    except (ValueError, TypeError) as error:
        raise OptionError(f"{key}: {request.get(key)!r} {error}") from None


def scale(asked: Asked, request: Mapping[str, Any]) -> Answer:
    asked.scale(_number(request, "workers", 1))
    return {"ok": True, "workers": asked.size()}


def _slot(what: str, told: str) -> Callable[[Asked, Mapping[str, Any]], Answer]:
    def order(asked: Asked, request: Mapping[str, Any]) -> Answer:
        slot = _number(request, "slot", 0)
        getattr(asked, what)(slot)
        return {"ok": True, "slot": slot, "what": told}

    return order


ORDERS: dict[str, Callable[[Asked, Mapping[str, Any]], Answer]] = {
    "scale": scale,
    "restart": _slot("restart", "a successor is on its way"),
    "drain": _slot("drain", "drains, and stays empty until resume"),
    "resume": _slot("resume", "a worker is on its way"),
}
