"""Ports for servers that cannot say which port 0 became.

Of a range that the kernel gives to nobody who asks for any port: what is free there
now, for TCP and UDP, is still free when the server binds it. Each process of
pytest-xdist has a part of the range for itself.
"""

import itertools
import os
import socket
from pathlib import Path

PARTS = 16
_ports = None


def _own_ports():
    most = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PARTS
    ports = range(1024 + number, most, PARTS)
    start = os.getpid() * 7 % len(ports)  # where another run of the tests is not
    return itertools.cycle([*ports[start:], *ports[:start]])


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    global _ports
    _ports = _ports or _own_ports()
    while True:
        port = next(_ports)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(family, kind) as probe:
                    probe.bind((host, port))
            return port
        except OSError:
            continue
