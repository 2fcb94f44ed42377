"""One question to a running master, and its answer: a line of JSON each."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from typing import Any

from .masters import Failed, reach

ANSWER_WITHIN = 10.0  # seconds, where --timeout says nothing; what is waited for: ever
BUSY_PAUSE = 0.05


def line_from(connection: socket.socket, until: float) -> bytes | None:
    """The answer; None at the time, short at the master's end."""
    data = bytearray()
    while not data.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0:
            return None
        connection.settimeout(None if math.isinf(left) else left)
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError:
            return None
        except ConnectionError:
            piece = b""
        if not piece:
            break
        data += piece
    return bytes(data)


def ask(
    request: dict[str, Any],
    master: str | int | None,
    path: str | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """The answer of the master of that name or pid, or at that path, or Failed. Who is
    asked to end and waits for it gets no answer: {"ok": True} then."""
    waits = request.get("wait", False)
    ends = waits and request["cmd"] == "stop"
    limit = timeout if timeout is not None else ANSWER_WITHIN
    began = time.monotonic()
    until = math.inf if waits and timeout is None else began + limit
    while True:
        raw, who = reach(master, path, limit)
        with socket.socket(fileno=raw.detach()) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(json.dumps(request).encode() + b"\n")
            line = line_from(connection, until)
        if line is None:
            if waits:
                what = "has not ended" if ends else "is not done"
                raise Failed(f"the {request['cmd']} {what} after {limit:g} s; it goes on", 1)
            raise Failed(f"{who} did not answer within {limit:g} s", 1)
        if ends and not line:
            return {"ok": True}
        if not line.endswith(b"\n"):
            what = "the reload was done" if waits else "it answered"
            raise Failed(f"{who} ended before {what}", 1)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Failed(f"{who} gave an answer that is none", 1)
        if not answer.get("busy"):
            return answer
        if time.monotonic() - began > limit:
            raise Failed(f"{who} is busy", 1)
        time.sleep(BUSY_PAUSE)
