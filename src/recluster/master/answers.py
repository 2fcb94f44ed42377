"""What a server has answered: enough of HTTP/1 to know whether it is ready, and why not. Pure."""

from __future__ import annotations

import re

LIMIT = 8192  # bytes: what has said nothing by then says nothing
QUOTED = 200  # characters of the body's first line
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
LENGTH = re.compile(rb"(?im)^content-length:\s*(\d+)")
CHUNKED = re.compile(rb"(?im)^transfer-encoding:.*chunked")


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()[:QUOTED]
    return "".join(one if one.isprintable() else "?" for one in text)


def judged(data: bytes, ended: bool) -> tuple[bool, str | None]:
    """Whether it is known by now, and then None for 2xx and 3xx, else the status and the
    first line of the body. `ended`: the server says no more."""
    ended = ended or len(data) >= LIMIT
    status = STATUS.match(data)
    if not status:
        if b"\n" in data:
            return True, f"no HTTP: {_shown(data.splitlines()[0])}"
        return ended, "no HTTP" if data else "nothing"
    code = int(status[1])
    head, gap, body = data.partition(b"\r\n\r\n")
    if code < 200:
        return judged(body, ended) if gap else (ended, "nothing")
    if code < 400:
        return True, None
    length = LENGTH.search(head)
    if CHUNKED.search(head):
        body = body.partition(b"\r\n")[2]
    whole = bool(gap) and length is not None and len(body) >= int(length[1])
    lines = body.lstrip().splitlines(keepends=True)
    first = lines[0] if lines else b""
    said = f"{code} {_shown(status[2] or b'')}".strip()
    quoted = f": {_shown(first)}" if first.strip() else ""
    return ended or whole or first.endswith(b"\n"), f"{said}{quoted}"
