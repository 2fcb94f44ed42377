"""The measurements, each on a running server: spread, accept cost, tail latency, faults.

A Target is anything that listens and has workers: a cluster here, a bare C server in the
repository's bench/. Results are plain dictionaries, as JSON has them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import figures, usage
from .plan import Plan
from .servers import Server

PATIENCE = 10.0  # a request unanswered for so long has failed
START_DELAY = 0.05  # of a load with a schedule, for the generator to have begun to wait
UNKNOWN_AFTER = 3.0  # seconds in which a server that holds connections has taken them all


class LoadFailed(Exception):
    """The load generator ended or did not answer."""


@dataclass(frozen=True)
class Target:
    server: Server
    address: tuple[str, int]
    pids: Mapping[int, int]  # slot -> pid
    master: int | None

    @property
    def workers(self) -> int:
        return len(self.pids)


class Load:
    """One run of the load generator."""

    def __init__(self, target: Target, plan: Plan, **wanted: Any) -> None:
        spec = {
            "address": target.address,
            "clients": plan.clients,
            "at_once": plan.at_once,
            "patience": PATIENCE,
            **wanted,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recluster.bench.load"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._rest = b""
        self._stdin.write(json.dumps(spec).encode() + b"\n")

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._stdout.close()

    def said(self, key: str, timeout: float) -> dict[str, Any]:
        """The next line that has this key."""
        until = time.monotonic() + timeout
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                found: dict[str, Any] = json.loads(line)
                if key in found:
                    return found
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._stdout], [], [], left)[0]:
                raise LoadFailed(f"the load generator was not done within {timeout:g} s")
            data = os.read(self._stdout.fileno(), 1 << 20)
            if not data:
                raise LoadFailed("the load generator has ended")
            self._rest += data


def request(path: str, close: bool = True) -> str:
    last = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{last}\r\n"


def _identify(target: Target) -> dict[str, Any]:
    """For a server that does not say who answered: the kernel is asked who accepted."""
    if target.server.tells:
        return {}
    return {"identify": {str(pid): str(slot) for slot, pid in target.pids.items()}}


def speaks_http(target: Target, plan: Plan) -> bool:
    """Whether one request for the light path is answered."""
    text = request(target.server.light or "/")
    with Load(target, plan, mode="closed", total=1, text=text) as load:
        return not load.said("done", PATIENCE * 2)["failed"]


def _closed(target: Target, plan: Plan, path: str, **wanted: Any) -> dict[str, Any]:
    text = request(path)
    with Load(target, plan, mode="closed", total=plan.short, text=text, **wanted) as load:
        return load.said("done", 60.0 + plan.short / 50)


def short(target: Target, plan: Plan) -> dict[str, Any]:
    """Short connections, `at_once` at a time, over requests that do nothing: how they
    spread. A server that does not say who answered is sent nothing: the connection is
    closed when it is known who has accepted it."""
    before = _usage(target)
    done = _closed(target, plan, "/", **_identify(target))
    after = _usage(target)
    answered = plan.short - sum(done["failed"].values())
    counts = figures.by_worker(done["counts"], target.workers)
    result = figures.spread(counts)
    result.update(failed=done["failed"], unknown=answered - sum(counts))
    if target.server.tells:
        result["accept"] = _cost(answered, before, after, done)
    return result


def accept(target: Target, plan: Plan) -> dict[str, Any]:
    """Connections per second and CPU per connection, where `short` could not tell."""
    before = _usage(target)
    done = _closed(target, plan, target.server.light or "/")
    answered = plan.short - sum(done["failed"].values())
    return _cost(answered, before, _usage(target), done)


def _cost(
    answered: int, before: tuple[float, float], after: tuple[float, float], done: dict[str, Any]
) -> dict[str, Any]:
    if not answered:
        return {}
    return {
        "per_second": answered / done["seconds"],
        "workers_us": (after[1] - before[1]) / answered * 1e6,
        "master_us": (after[0] - before[0]) / answered * 1e6,
        # At 1 the generator had a whole CPU in use: then the rate is its own.
        "generator_busy": done["cpu"] / done["seconds"],
    }


def _usage(target: Target) -> tuple[float, float]:
    """(master, workers)"""
    master = usage.single_threaded(target.master) if target.master else 0.0
    return master, usage.whole(target.pids.values())


def long(target: Target, plan: Plan) -> dict[str, Any] | None:
    """Connections that stay open; None for a server that holds one per worker."""
    if not target.server.keeps:
        return None
    wanted: dict[str, Any] = {"mode": "hold", "total": plan.long, "text": request("/", False)}
    if not target.server.tells:
        wanted["patience"] = UNKNOWN_AFTER
    with Load(target, plan, **wanted, **_identify(target)) as load:
        done = load.said("done", 60.0 + plan.long / 20)
    counts = figures.by_worker(done["counts"], target.workers)
    if sum(counts) < plan.long * 0.9 and not target.server.tells:
        return None  # it takes the next connection when the last has gone
    return {**figures.spread(counts), "failed": done["failed"]}


def open_loop(target: Target, plan: Plan, plan_of: list[tuple[float, bool]]) -> Load:
    server = target.server
    assert server.light is not None
    return Load(
        target, plan, mode="open", schedule=plan_of, delay=START_DELAY,
        text=request(server.light), heavy_text=request(server.heavy or server.light),
    )  # fmt: skip


def tail(target: Target, plan: Plan) -> dict[str, Any]:
    """The light requests' latency while some requests block their worker."""
    rate = plan.rate_for(target.workers)
    planned = figures.schedule(rate, plan.tail_s, plan.heavy_part)
    with open_loop(target, plan, planned) as load:
        rows = load.said("rows", plan.tail_s + 2 * PATIENCE + 30.0)["rows"]
    best = figures.ideal(planned, target.workers, plan.light_ms, plan.heavy_ms)
    return {**figures.tail(rows), "rate": rate, "ideal_ms": best if target.server.tells else None}


def undisturbed_tail(target: Target, plan: Plan) -> dict[str, Any]:
    """Again while the generator itself was late, `tail_tries` times at most: the one where
    it was least late. `tries`: how many were made."""
    found = [tail(target, plan)]
    while _lag(found[-1]) > figures.LATE_GENERATOR_MS and len(found) < plan.tail_tries:
        found.append(tail(target, plan))
    best = min(found, key=_lag)
    return {**best, "tries": len(found)}


def _lag(found: dict[str, Any]) -> float:
    return float(found["lag_ms"]["p99"] or 0)


def fault(target: Target, plan: Plan, number: int) -> dict[str, Any]:
    """Light requests while the worker of slot 0 is stopped (SIGSTOP, goes on after
    `fault_s`) or killed (SIGKILL, the cluster replaces it)."""
    seconds = plan.fault_before_s + plan.fault_s + plan.fault_after_s
    planned = figures.schedule(plan.fault_rate * target.workers, seconds, 0.0)
    pid = target.pids[0]
    with open_loop(target, plan, planned) as load:
        start = load.said("began", PATIENCE)["began"]
        _sleep_until(start + plan.fault_before_s)
        at = time.monotonic() - start
        os.kill(pid, number)
        try:
            _sleep_until(start + plan.fault_before_s + plan.fault_s)
        finally:
            if number == signal.SIGSTOP:
                os.kill(pid, signal.SIGCONT)
        until = time.monotonic() - start
        rows = load.said("rows", seconds + 2 * PATIENCE + 30.0)["rows"]
    return figures.fault(rows, at, until, plan.late_ms)


def everything(target: Target, plan: Plan, step: Callable[[str], None]) -> dict[str, Any]:
    """All that the plan has for so many workers. `step` is told what comes next."""
    run: dict[str, Any] = {"short": short(target, plan)}
    run["accept"] = run["short"].pop("accept", None)
    run["long"] = long(target, plan)
    if not target.server.tells:
        if not speaks_http(target, plan):
            run["trouble"] = f"{target.server.light} is not answered: only the spread is measured"
            return run
        run["accept"] = accept(target, plan)
    if target.workers == plan.tail_workers and target.server.heavy:
        step("tail latency")
        run["tail"] = undisturbed_tail(target, plan)
    if target.workers == plan.fault_workers:
        step("a stopped worker")
        run["stopped"] = fault(target, plan, signal.SIGSTOP)
        step("a killed worker")
        run["killed"] = fault(target, plan, signal.SIGKILL)
    return run


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
