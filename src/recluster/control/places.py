"""Where the control sockets of masters are. Imports next to nothing: `recluster health` is
to be quick.

A master's socket is `PID.sock`; beside it `NAME.sock` is a symbolic link to the socket of
the master of that name, wherever that is.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False  # module typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_DIRECTORY = "/run/recluster"
VARIABLE = "RECLUSTER_RUN_DIRECTORY"
SUFFIX = ".sock"


def default_directory(uid: int, environ: Mapping[str, str]) -> str:
    """Where a master of that user puts its socket."""
    wanted = environ.get(VARIABLE, "")
    if os.path.isabs(wanted):
        return wanted
    if uid == 0:
        return RUN_DIRECTORY
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        try:
            found = os.stat(runtime)
        except OSError:
            found = None
        # `su` keeps another's.
        if found and stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
            return os.path.join(runtime, "recluster")
    return f"/tmp/recluster-{uid}"


def _runtimes(uid: int, environ: Mapping[str, str]) -> list[str]:
    return [environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"]


def _below(runtimes: list[str], uid: int) -> list[str]:
    below = [f"{runtime}/recluster" for runtime in runtimes if os.path.isabs(runtime)]
    return [*below, f"/tmp/recluster-{uid}"]


def directories(uid: int, environ: Mapping[str, str]) -> list[str]:
    """Where masters of that user may have put their sockets: one that was started by cron
    has no XDG_RUNTIME_DIR."""
    wanted = environ.get(VARIABLE, "")
    if os.path.isabs(wanted):
        return [wanted]
    if uid == 0:
        return [RUN_DIRECTORY]
    return list(dict.fromkeys(_below(_runtimes(uid, environ), uid)))


def likely_paths(pid: int, environ: Mapping[str, str]) -> list[str]:
    """Where the socket of that master may be, looked at from outside, whose
    environment may differ from the master's. Raises OSError if there is no such
    process."""
    uid = os.stat(f"/proc/{pid}").st_uid
    runtimes = _runtimes(uid, environ if uid == os.geteuid() else {})
    first = [environ.get(VARIABLE, "")] if uid == os.geteuid() else []
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        entries = []
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name == VARIABLE.encode():
            first.insert(0, os.fsdecode(value))
        elif name == b"XDG_RUNTIME_DIR":
            runtimes.insert(0, os.fsdecode(value))
    usual = [RUN_DIRECTORY] if uid == 0 else _below(runtimes, uid)
    asked = [directory for directory in first if os.path.isabs(directory)]
    return [f"{where}/{pid}{SUFFIX}" for where in dict.fromkeys([*asked, *usual])]
