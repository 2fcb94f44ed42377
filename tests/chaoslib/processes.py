"""Processes, as /proc has them."""

import contextlib
import os
import signal
from pathlib import Path

from harness import stop


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comm(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()


def tagged(tag):
    """Those that have it in their environment (of ours, and of what they have started)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if tag in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
    return found


def peers(pid, port):
    """The client ports of what that process has accepted on this port."""
    mine = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            mine.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[2].partition(":")[2], 16)
        for row in rows
        if f"socket:[{row[9]}]" in mine and int(row[1].partition(":")[2], 16) == port
    ]


def kill(pid, port):
    """SIGKILL, and whose connections go with it: asked while it stands still."""
    try:
        stop(pid)
        taken = peers(pid, port)
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # it was dying already: what it has open is root's then
    return taken


def switches(pid):
    """How often each of its threads has gone to sleep or was made to."""
    status = [task.read_text().splitlines() for task in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(line.split()[1]) for lines in status for line in lines if "ctxt" in line)
