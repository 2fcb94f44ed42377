"""Bytes of the kernel's, of workers and of clients as text that can be shown, and text shown."""

from __future__ import annotations

import json
import math
import os
from typing import Any


def text_of(data: bytes) -> str:
    """What is not UTF-8 stays what it was (`bytes_of`)."""
    return data.decode(errors="surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits} is too much")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def json_of(line: bytes) -> Any:
    """Of somebody else's line, what can be told on as JSON; or ValueError."""
    try:
        return _DECODER.decode(line.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


LINE_MOST = (1 << 20) - 1  # RC_LINE_MAX, RC_SEND_MAX with the newline


def line_of(message: Any) -> bytes:
    """A message on the channel, without its newline. Raises TypeError or ValueError for what
    JSON cannot say, and for more than the other end would take."""
    try:
        line = json.dumps(message, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("message: nested too deeply") from None
    if len(line) > LINE_MOST:
        raise ValueError(f"message: {len(line)} bytes; a line may have {LINE_MOST}")
    return line


def _escaped(sign: str) -> str:
    if sign.isprintable():
        return sign
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """For a log or a terminal: nothing in it ends the line or moves the cursor."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def say(text: str) -> None:
    """On standard output; who has stopped reading (`... | head`) wants no more of it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
