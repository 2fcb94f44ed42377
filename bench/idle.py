"""An idle master makes no system call: python bench/idle.py [--seconds 10] [--metrics]

Starts four workers of examples/stdlib_server.py, waits until the master has
nothing left to do, watches its context switches and CPU time for a while, then
attaches `strace -C -f`. strace itself interrupts the epoll_wait the master is
blocked in, once at attach: what the master does because of that, within its first
moments, is shown apart. Exit code: 0 no call, 1 some, 0 with a line where strace
may not run (the switches are still checked).
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import EXAMPLES, Late, Master, arguments, end, free_port, machine

ATTACH = 0.25  # seconds in which a call is put down to being attached
DEADLINE = 30.0


@dataclass(frozen=True)
class Use:
    """What the kernel has counted for a process."""

    switches: int
    ticks: int

    @classmethod
    def of(cls, pid: int) -> Use:
        status = Path(f"/proc/{pid}/status").read_text()
        switches = sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", status)))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(switches, int(fields[11]) + int(fields[12]))


def wait_settled(pid: int, quiet: float = 2.0) -> float:
    """Until the master has not run for `quiet` seconds. Returns how long that took."""
    began = last_change = time.monotonic()
    seen = Use.of(pid)
    while time.monotonic() - last_change < quiet:
        time.sleep(0.1)
        now = Use.of(pid)
        if now != seen:
            seen, last_change = now, time.monotonic()
        if time.monotonic() - began > DEADLINE:
            raise Late(f"the master did not come to rest within {DEADLINE:g} s")
    return last_change - began


def watch_counters(pid: int, seconds: float) -> bool:
    before = Use.of(pid)
    time.sleep(seconds)
    after = Use.of(pid)
    print(
        f"unobserved for {seconds:g} s: {after.switches - before.switches} context switches, "
        f"{after.ticks - before.ticks} ticks of CPU time"
    )
    return after.switches == before.switches


def strace(pid: int, seconds: float) -> tuple[str, str]:
    """(what strace wrote, what it said on stderr)."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "trace")
        command = ["strace", "-C", "-f", "-ttt", "-o", str(out), "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            time.sleep(seconds)
        finally:
            end(tracer, signal.SIGINT)
        assert tracer.stderr is not None
        with tracer.stderr:
            said = tracer.stderr.read().strip()
        return (out.read_text() if out.exists() else ""), said


def calls(trace: str) -> list[tuple[float, str]]:
    """(seconds since the first, the call) of each system call."""
    found = re.findall(r"^(?:\d+ +)?(\d+\.\d+) (.*)$", trace, re.MULTILINE)
    begun = [(float(at), text) for at, text in found if re.match(r"\w+\(", text)]
    return [(at - begun[0][0], text) for at, text in begun]


def watch_strace(pid: int, seconds: float) -> bool:
    if shutil.which("strace") is None:
        print("SKIPPED: strace is not installed")
        return True
    trace, said = strace(pid, seconds)
    if "attached" not in said:
        print(f"SKIPPED: strace cannot attach here: {said or 'it said nothing'}")
        return True
    # The call it was blocked in is no new one, nor are those of being attached.
    first, *more = calls(trace) or [(0.0, "none")]
    print(f"under strace for {seconds:g} s: it was blocked in {first[1]}")
    attach = [text for at, text in more if at < ATTACH]
    later = [(at, text) for at, text in more if at >= ATTACH]
    print(f"  because strace interrupted that: {len(attach)} calls {names(attach)}")
    print(f"  in the {seconds - ATTACH:g} s after: {len(later)} system calls")
    for at, text in later[:20]:
        print(f"    {at:8.3f} s {text}")
    if later:
        print(trace[trace.find("% time") :])
    return not later


def names(texts: list[str]) -> str:
    return f"({', '.join(text.partition('(')[0] for text in texts)})" if texts else ""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to watch, twice")
    parser.add_argument("--workers", type=int, default=4, help="how many workers")
    parser.add_argument("--metrics", action="store_true", help="with --metrics, scraped once")
    given = parser.parse_args()
    print(machine())
    server = [str(EXAMPLES / "stdlib_server.py"), str(free_port())]
    port = free_port()
    options = ["--metrics", f"127.0.0.1:{port}"] if given.metrics else []
    master = Master(server, workers=given.workers, options=options, log=subprocess.DEVNULL)
    try:
        master.wait_ready(DEADLINE)
        if given.metrics:
            from metrics import scrape

            print(f"scraped: {len(scrape(port))} bytes")
        took = wait_settled(master.pid)
        print(f"{given.workers} workers ready; the master came to rest {took:.1f} s later")
        quiet = watch_counters(master.pid, given.seconds)
        silent = watch_strace(master.pid, given.seconds)
    except Late as error:
        print(f"FAILED: {error}")
        return 1
    finally:
        master.stop()
    print("no wakeup while idle" if quiet and silent else "FAILED: the idle master is not idle")
    return 0 if quiet and silent else 1


if __name__ == "__main__":
    sys.exit(main())
