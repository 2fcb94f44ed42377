"""Who workers are: the user, groups and umask that --user, --group and --umask name.

Owns whether the master can make them so, and what it says of that. They become it in the
child (csrc/process/identity.c).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .doors import ClusterError

if TYPE_CHECKING:
    from .._engine import Engine
    from ..child.launch import Changes, Program
    from ..options import Options

NEEDED = {"CAP_SETUID": 7, "CAP_SETGID": 6, "CAP_KILL": 5}
SEES = 19  # CAP_SYS_PTRACE


@dataclass(frozen=True)
class Identity:
    """`uid` and `gid` are those of the workers, whether they change or not."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    text: str
    home: str | None

    @property
    def is_another(self) -> bool:
        return (self.uid, self.gid) != (os.geteuid(), os.getegid())

    def environment(self) -> Changes:
        """As a login or systemd would have it."""
        if self.home is None:
            return {}
        name = self.text.partition(":")[0]
        return {"HOME": self.home, "USER": name, "LOGNAME": name}


def wanted(options: Options) -> Identity | None:
    """None: workers are who the master is."""
    user, gid = options.user, options.group.gid if options.group else None
    if user is None and gid is None:
        return None
    uid = os.geteuid() if user is None else user.uid
    if gid is None and user is not None:
        gid = user.group
    assert gid is not None  # Options.make has seen to it
    groups = (user.groups if user else ()) or (gid,)
    text = f"{user.name if user else uid}:{options.group.name if options.group else gid}"
    return Identity(uid, gid, groups, text, user.home if user else None)


def _has(capability: int) -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
    return False


@dataclass(frozen=True)
class Assumed:
    """`owner`: uid and gid of workers, where they are not the master's; `door`: which one can
    be theirs."""

    owner: tuple[int, int] | None
    door: str


def assume(
    engine: Engine, program: Program, options: Options, say: Callable[[str], None]
) -> Assumed:
    """Have the engine start workers so, and bind for them what is allowed; say what the master
    keeps for it. Raises ClusterError where it may not."""
    for one in options.allow_bind:
        engine.allow_bind(one.host, one.port)
    identity = wanted(options)
    mask = -1 if options.umask is None else options.umask
    if identity is None:
        if options.umask is not None:
            engine.identity(None, mask)
        return Assumed(None, options.door)
    if identity.is_another:
        if lacks := missing(options):
            raise ClusterError(
                f"user: workers cannot be {identity.text} here: "
                f"the master lacks {', '.join(lacks)} (it would have to be root's)"
            )
        sees = _has(SEES)
        kept = [*NEEDED, "CAP_SYS_PTRACE (to see their sockets)"] if sees else list(NEEDED)
        say(
            f"workers are {identity.text}; the master stays uid {os.geteuid()} and needs "
            f"{', '.join(kept)} for them"
        )
    engine.identity((identity.uid, identity.gid, identity.groups), mask)
    program.change(identity.environment())
    return Assumed((identity.uid, identity.gid), _door_for(identity, options.door))


def missing(options: Options) -> list[str]:
    """Capabilities that the master lacks for it."""
    identity = wanted(options)
    if identity is None or not identity.is_another:
        return []
    return [name for name, bit in NEEDED.items() if not _has(bit)]


def _door_for(identity: Identity, wanted_door: str) -> str:
    """Who may not look into workers of another user has the preload library only."""
    blind = identity.is_another and not _has(SEES)
    return "preload" if blind and wanted_door == "auto" else wanted_door
