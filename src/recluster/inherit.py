"""Sockets that are there before the first worker: systemd's, and those of --bind.

They are given to the engine, which hands them to the workers that bind the same
address (csrc/inherited.c). No Python socket object outlives `give`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from . import _engine
from .checks import split_address
from .doors import ClusterError

FIRST = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def activated(environ: Mapping[str, str]) -> list[int]:
    """The descriptors that systemd passed to this process."""
    try:
        if int(environ.get("LISTEN_PID", "")) != os.getpid():
            return []
        count = int(environ.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    return list(range(FIRST, FIRST + max(0, count)))


def _bound(address: str) -> socket.socket:
    kind, host, port = split_address(address)
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        where: str | tuple[str, int] = "\0" + host[1:] if host.startswith("@") else host
    else:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where = (host, port)
    try:
        made.bind(where)
        made.listen(socket.SOMAXCONN)
    except OSError:
        made.close()
        raise
    return made


def give(
    engine: _engine.Engine,
    addresses: tuple[str, ...],
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> tuple[str, ...]:
    """Hand all of them over; returns the variables that are not for the workers.

    Raises ClusterError for an address that cannot be bound.
    """
    taken = False
    for fd in activated(environ):
        try:
            engine.inherit(fd, False)
            taken = True
        except OSError as error:
            os.set_inheritable(fd, False)
            say(f"inherited descriptor {fd} is not used: {error.strerror}")
    for address in addresses:
        try:
            made = _bound(address)
            try:
                engine.inherit(made.fileno(), True)
            except OSError:
                made.close()
                raise
            made.detach()
        except OSError as error:
            raise ClusterError(f"bind {address}: {error.strerror or error}") from None
    return VARIABLES if taken else ()
