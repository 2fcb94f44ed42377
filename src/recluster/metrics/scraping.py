"""A request over HTTP/1, as far as a scraper or a probe makes one, and the answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

HEAD_MOST = 8192  # bytes
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
PLAIN = "text/plain; charset=utf-8"


class Refused(Exception):
    """The status, and a line that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Asked:
    path: str
    query: dict[str, str]
    accept: str
    bare: bool  # HEAD: without the body


@lru_cache(maxsize=16)  # a scraper says the same each time
def asked(data: bytes) -> Asked | None:
    """None while the head is not whole. Raises Refused. (A body is not looked at.)"""
    head, gap, _ = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    if len(data) > HEAD_MOST:
        raise Refused(431, f"more than {HEAD_MOST} bytes")
    if not gap:
        return None
    line, *fields = head.decode("latin-1").split("\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused(400, "this is HTTP/1")
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        raise Refused(405, "GET and HEAD only")
    path, _, query = target.partition("?")
    accept = [value for name, _, value in map(_split, fields) if name == "accept"]
    pairs = (one.partition("=") for one in query.split("&"))
    values = {name: value for name, _, value in pairs}
    return Asked(path, values, ",".join(accept), method == "HEAD")


def _split(field: str) -> tuple[str, str, str]:
    name, colon, value = field.partition(":")
    return name.strip().lower(), colon, value.strip()


def answer(status: int, body: str, kind: str = PLAIN, bare: bool = False) -> bytes:
    data = body.encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(data)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
    )
    if status == 405:
        head += "Allow: GET, HEAD\r\n"
    return f"{head}\r\n".encode() + (b"" if bare else data)
