"""Sockets that are there before the first worker: systemd's, and those of --bind.

They are given to the engine, which hands them to the workers that bind the same
address (csrc/door/inherited.c). No Python socket object outlives `give`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .. import _engine
from ..options.checks import split_address
from ..systemd.store import note_of
from .doors import ClusterError

FIRST = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
Owner = tuple[int, int] | None  # uid and gid; None: the master's
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def activated(environ: Mapping[str, str]) -> list[tuple[int, str]]:
    """The descriptors that systemd passed to this process, and their names."""
    try:
        if int(environ.get("LISTEN_PID", "")) != os.getpid():
            return []
        count = max(0, int(environ.get("LISTEN_FDS", "")))
    except ValueError:
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":") + [""] * count
    return list(zip(range(FIRST, FIRST + count), names, strict=False))


@dataclass
class Given:
    """What was handed over: `offered`, where it listens; `unneeded`, the variables that are not
    for the workers; `restored`, lanes of a master before: the name in the store by the inode."""

    offered: set[str] = field(default_factory=set)
    unneeded: tuple[str, ...] = ()
    restored: dict[int, str] = field(default_factory=dict)


def _bound(address: str, owner: Owner) -> socket.socket:
    """`owner`: of one user are all that listen on an address."""
    kind, host, port = split_address(address)
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        where: str | tuple[str, int] = "\0" + host[1:] if host.startswith("@") else host
    else:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where = (host, port)
    try:
        if owner is not None:
            os.fchown(made.fileno(), *owner)
        made.bind(where)
        made.listen(socket.SOMAXCONN)
    except OSError:
        made.close()
        raise
    return made


def _restore(engine: _engine.Engine, fd: int, note: str, say: Callable[[str], None]) -> str:
    """Where a lane of the master before listens; "" for one that cannot be had: it is closed, for
    nobody else has a use for it."""
    try:
        return engine.restore(fd, note)
    except OSError as error:
        os.close(fd)
        say(f"a listener of the master before is given up: {error.strerror}")
        return ""


def _take(engine: _engine.Engine, fd: int, say: Callable[[str], None]) -> str:
    try:
        return engine.inherit(fd, False)
    except OSError as error:
        os.set_inheritable(fd, False)
        say(f"inherited descriptor {fd} is not used: {error.strerror}")
        return ""


def _bind(engine: _engine.Engine, address: str, there: set[str], owner: Owner) -> str:
    """Raises OSError."""
    kind, host, port = split_address(address)
    if kind == "tcp" and there:
        host = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if text in there:  # the master before had it, and its workers' lanes are here
            engine.allow_bind(host, port)
            return text
    if kind == "unix" and f"unix:{host}" in there:
        return f"unix:{host}"  # it was kept, and is for all as it was
    made = _bound(address, owner)
    try:
        text = engine.inherit(made.fileno(), True)
    except OSError:
        made.close()
        raise
    made.detach()
    return text


def give(
    engine: _engine.Engine,
    addresses: tuple[str, ...],
    environ: Mapping[str, str],
    say: Callable[[str], None],
    owner: Owner = None,
) -> Given:
    """Hand all of them over. Raises ClusterError for an address that cannot be bound."""
    given, there = Given(), activated(environ)
    where: list[str] = []
    for fd, name in there:
        note = note_of(name)
        if note is not None:
            given.restored[os.fstat(fd).st_ino] = name  # if it is given up, the store drops it
            where.append(_restore(engine, fd, note, say))
    before = {*where} - {""}
    if before:
        engine.restored()
        count = sum(map(bool, where))
        say(f"{count} listeners of the master before: {', '.join(sorted(before))}")
    given.offered |= before
    given.offered |= {_take(engine, fd, say) for fd, name in there if note_of(name) is None} - {""}
    if given.offered or given.restored:
        given.unneeded = VARIABLES
    for address in addresses:
        try:
            given.offered.add(_bind(engine, address, before, owner))
        except OSError as error:
            raise ClusterError(f"bind {address}: {error.strerror or error}") from None
    return given
