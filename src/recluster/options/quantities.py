"""Sizes, counts and parts, as values of options: as `checks`. Pure."""

from __future__ import annotations

import contextlib
import re

from .checks import whole

MOST = 1 << 60  # bytes
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.lower() == "none")


def size_or_none(value: object) -> int | None:
    """Bytes; or text with K, M, G, T, which are powers of 1024, as in systemd."""
    if _is_none(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST:
        return value
    found = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if not 0 < size <= MOST:
        raise ValueError("must be a size: bytes, or a number with K, M, G or T")
    return size


def count_or_none(value: object) -> int | None:
    return None if _is_none(value) else whole(1)(value)


def part(value: object) -> float:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError("must be a number from 0 to below 1")
    return float(value)
