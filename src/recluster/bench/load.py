"""The load generator: `python -m recluster.bench.load`, a process of its own.

One line of JSON on standard input says what to do, lines of JSON on standard output
say `began` (CLOCK_MONOTONIC), in mode hold `held`, and `done` with the results; the
end of standard input lets go what is held.

    closed   `total` connections, `at_once` in the making at any time, one request each
    hold     the same, but each connection stays open
    open     each request at its scheduled time, on a connection of its own, however many
             are unanswered; latency counts from the scheduled time

It is one thread over epoll without a collector. It notes its own lag (how long after its
scheduled time a request was really begun) and its own CPU time, so that a generator that
was the bottleneck is told from a slow server. Invariant: nothing here blocks but the wait.

Clients come from many addresses of 127.0.0.0/8 where the server has an IPv4 loopback
address: a policy that looks at the source sees many, and ports do not run out.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import json
import os
import random
import re
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from .identify import Identifier

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python names it since 3.12
WORKER = re.compile(rb"worker=(\d+)")
FAILURES = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset"}
SWEEP = 0.05  # seconds between looks for requests that have waited too long
IDENTIFY_PAUSE = 0.001


class Request:
    """One connection with its request."""

    __slots__ = ("answer", "at", "began", "ended", "failure", "heavy", "sock", "text", "worker")

    def __init__(self, text: bytes, at: float, heavy: bool = False) -> None:
        self.text = text  # what is still to be sent
        self.at = at  # when it should begin
        self.heavy = heavy
        self.began = self.ended = 0.0
        self.answer = b""
        self.failure: str | None = None
        self.worker: str | None = None
        self.sock: Any = None


class Generator:
    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        host, port = wanted["address"]
        self.address = (host, port)
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sources: Iterator[tuple[str, int]] | None = None
        if host.startswith("127."):
            chance = random.Random(2)
            names = [
                f"127.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
                for _ in range(wanted["clients"])
            ]
            self.sources = itertools.cycle([(name, 0) for name in names])
        self.epoll = select.epoll()
        self.live: dict[int, Request] = {}
        self.held: list[Request] = []
        self.done: list[Request] = []
        self.hold = wanted["mode"] == "hold"
        self.patience: float = wanted["patience"]
        self.identifier: Identifier | None = None
        if wanted.get("identify"):
            self.identifier = Identifier(
                self.address, {int(pid): slot for pid, slot in wanted["identify"].items()}
            )
        self.swept = time.monotonic()

    # ---- one connection --------------------------------------------------------------

    def begin(self, one: Request) -> None:
        one.began = time.monotonic()
        sock = one.sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        fd = sock.fileno()
        self.live[fd] = one
        try:
            if self.sources:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind(next(self.sources))
            sock.connect(self.address)
        except BlockingIOError:
            pass  # on its way
        except OSError as error:
            self.end(one, error)
            return
        # On the loopback the handshake is nearly always done by now; if it is not, send
        # says EAGAIN and epoll tells when it is.
        self.epoll.register(fd, select.EPOLLIN)
        self.send(one, fd)

    def send(self, one: Request, fd: int) -> None:
        if self.identifier:
            return
        try:
            one.text = one.text[one.sock.send(one.text) :]
            if not one.text:
                return
        except BlockingIOError:
            pass
        except OSError as error:
            self.end(one, error)
            return
        self.epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def ready(self, one: Request, fd: int, events: int) -> None:
        if events & select.EPOLLOUT and one.text:
            error = one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.end(one, OSError(error, os.strerror(error)))
                return
            self.epoll.modify(fd, select.EPOLLIN)
            self.send(one, fd)
            return
        try:
            data = one.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(one, error)
            return
        if data:
            one.answer = (one.answer + data)[:8192]
            if self.hold and b"\r\n\r\n" in one.answer and WORKER.search(one.answer):
                self.keep(one, fd)
        else:
            self.end(one, None)

    def keep(self, one: Request, fd: int) -> None:
        """Answered, and stays open."""
        one.ended = time.monotonic()
        self.epoll.unregister(fd)
        del self.live[fd]
        self.judge(one)
        self.held.append(one)
        self.done.append(one)

    def end(self, one: Request, error: OSError | str | None) -> None:
        one.ended = time.monotonic()
        del self.live[one.sock.fileno()]
        one.sock.close()
        if isinstance(error, str):
            one.failure = error
        elif error is not None:
            one.failure = FAILURES.get(error.errno or 0, "other")
        elif self.hold:
            one.failure = "closed"
        elif one.worker is None:
            self.judge(one)
        self.done.append(one)

    def judge(self, one: Request) -> None:
        if not one.answer:
            one.failure = "eof"
        elif not one.answer.startswith(b"HTTP/1."):
            one.failure = "bad"
        elif one.answer[9:10] == b"5":
            one.failure = "status"
        found = WORKER.search(one.answer)
        if found:
            one.worker = found[1].decode()

    # ---- all of them -----------------------------------------------------------------

    def wait(self, until: float) -> None:
        """Take what comes, until that moment at most. select() on the epoll descriptor,
        for epoll's own timeout is of whole milliseconds."""
        left = max(0.0, until - time.monotonic())
        if select.select([self.epoll], [], [], left)[0]:
            for fd, events in self.epoll.poll(0):
                one = self.live.get(fd)
                if one is not None:
                    self.ready(one, fd, events)
        now = time.monotonic()
        if now - self.swept > SWEEP:
            self.swept = now
            for one in [one for one in self.live.values() if now - one.at > self.patience]:
                self.end(one, "timeout")

    def identify(self) -> None:
        """Ask the kernel who has accepted what is open; let go what is known."""
        assert self.identifier is not None
        waiting = {one.sock.getsockname()[:2]: one for one in self.live.values()}
        found = self.identifier.find(list(waiting))
        for name, slot in found.items():
            one = waiting[name]
            one.worker = slot
            if self.hold:
                fd = one.sock.fileno()
                self.epoll.unregister(fd)
                del self.live[fd]
                one.ended = time.monotonic()
                self.held.append(one)
                self.done.append(one)
            else:
                self.end(one, None)

    def run_closed(self) -> None:
        text = self.wanted["text"].encode()
        left, at_once = self.wanted["total"], self.wanted["at_once"]
        while left or self.live:
            if self.hold and len(self.done) - len(self.held) > at_once:
                left = 0  # it does not hold so many; others would wait in vain as well
            while left and len(self.live) < at_once:
                left -= 1
                self.begin(Request(text, time.monotonic()))
            pause = IDENTIFY_PAUSE if self.identifier else SWEEP
            self.wait(time.monotonic() + pause)
            if self.identifier and self.live:
                self.identify()

    def run_open(self, start: float) -> None:
        texts = self.wanted["text"].encode(), self.wanted["heavy_text"].encode()
        planned = [(start + at, heavy) for at, heavy in self.wanted["schedule"]]
        following = 0
        while following < len(planned) or self.live:
            now = time.monotonic()
            while following < len(planned) and planned[following][0] <= now:
                at, heavy = planned[following]
                following += 1
                self.begin(Request(texts[heavy], at, heavy))
            until = now + SWEEP
            if following < len(planned):
                until = min(until, planned[following][0])
            self.wait(until)

    def results(self, start: float) -> dict[str, Any]:
        counts: dict[str, int] = {}
        failed: dict[str, int] = {}
        for one in self.done:
            if one.failure:
                failed[one.failure] = failed.get(one.failure, 0) + 1
            elif one.worker is not None:
                counts[one.worker] = counts.get(one.worker, 0) + 1
        use = resource.getrusage(resource.RUSAGE_SELF)
        said: dict[str, Any] = {
            "done": True,
            "seconds": max((one.ended for one in self.done), default=start) - start,
            "cpu": use.ru_utime + use.ru_stime,
            "counts": counts,
            "failed": failed,
        }
        if self.wanted["mode"] == "open":
            said["rows"] = [
                {
                    "at": one.at - start,
                    "ms": (one.ended - one.at) * 1000,
                    "lag_ms": (one.began - one.at) * 1000,
                    "heavy": one.heavy,
                    "worker": one.worker,
                    "failure": one.failure,
                }
                for one in self.done
            ]
        return said


def tell(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who has started it
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    # Woken at once when something comes, also on a machine whose CPUs the workers fill;
    # without the privilege it competes like any other process and its lag shows it.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    generator = Generator(json.loads(sys.stdin.readline()))
    gc.collect()
    gc.disable()
    start = time.monotonic() + generator.wanted.get("delay", 0.0)
    tell({"began": start})
    if generator.wanted["mode"] == "open":
        generator.run_open(start)
    else:
        generator.run_closed()
    results = generator.results(start)
    if generator.hold:
        tell({"held": len(generator.held)})
    tell(results)
    if generator.hold:
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
