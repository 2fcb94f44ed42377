"""The TCP sockets of a process, as /proc tells them."""

import os
from pathlib import Path

from clients import connect

ESTABLISHED, LISTENING = "01", "0A"


def sockets(pid, port, state):
    """Its descriptors of sockets of this local port in this state."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                found.append(int(fd))
        except FileNotFoundError:  # closed since
            continue
    return found


def hold_each(port, pids, most=3000):
    """Connections without a request, until each of these has accepted one: who is
    at work is avoided (balance), so no number of them is enough for sure."""
    held = []
    while not all(sockets(pid, port, ESTABLISHED) for pid in pids):
        assert len(held) < most
        held.append(connect(port))
    return held
