"""What few need."""

from __future__ import annotations

from ...base import accounts
from .. import checks, hookspec
from .field import Field

DOORS = ("auto", "notify", "preload")


class Expert:
    user = Field(
        accounts.account,
        None,
        "the master's",
        "USER",
        "user of the workers, a name or a number, with that user's groups and no capabilities; the "
        "master stays what it is, and needs CAP_SETUID, CAP_SETGID, CAP_KILL (root) for it",
    )

    group = Field(
        accounts.group,
        None,
        "the user's",
        "GROUP",
        "group of the workers, a name or a number",
    )

    umask = Field(
        accounts.umask,
        None,
        "the master's",
        "MASK",
        "umask of the workers, in octal digits",
    )

    allow_bind = Field(
        checks.bindable,
        None,
        "none",
        "PORT",
        "PORT, HOST:PORT or [IPV6]:PORT that the master binds for a worker that asks, though "
        "the worker itself may not (ports below 1024); may be given several times",
        repeated=True,
    )

    ready_url = Field(
        checks.ready_url,
        None,
        "none",
        "PATH",
        "with ready_when accepting: what it then must answer a GET of PATH with, 2xx or 3xx, on a "
        "connection of the master's; https:PATH asks by TLS (no certificate is checked); it is "
        "asked again until ready_timeout",
    )

    hang_timeout = Field(
        checks.seconds_or_none,
        None,
        "none",
        "S",
        "a worker that hangs (event hung: for a second it has taken no connections, though "
        "some wait) and goes on so for this long is ended; a Python one writes its stack to "
        "stderr first",
        live=True,
    )

    hold = Field(
        checks.seconds_or_none,
        5.0,
        "5",
        "S",
        "when no worker has listened on an address for this long, clients that connect there "
        "wait unanswered until one does, so that health checks notice; 0 or none: never",
        live=True,
    )

    on = Field(
        hookspec.wanted,
        None,
        "none",
        "EVENT=COMMAND",
        "run this by /bin/sh at each such event (as --events has them): RECLUSTER_EVENT, "
        "RECLUSTER_EVENT_SLOT and so on in its environment, the event as JSON on its standard "
        "input; 8 at a time, 30 s each; may be given several times",
        repeated=True,
    )

    door = Field(
        checks.one_of(*DOORS),
        "auto",
        "auto",
        "DOOR",
        "how bind and listen of workers are seen: notify (seccomp), preload (LD_PRELOAD "
        "library), auto (notify where the kernel allows it, and in dispatch the library to be "
        "passed connections)",
    )

    control = Field(
        checks.control_path,
        None,
        "auto (as a library: none)",
        "PATH",
        "Unix socket for `recluster status` and its like; auto: PID.sock in /run/recluster (root), "
        "$XDG_RUNTIME_DIR/recluster or /tmp/recluster-UID, or in $RECLUSTER_RUN_DIRECTORY; "
        "none: no socket",
    )
