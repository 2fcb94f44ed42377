"""Who implements the balance policy here: the choice at the start."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from .doors import ClusterError

if TYPE_CHECKING:
    from . import _engine
    from .options import Options

EXACT = ("round_robin", "least_connections")
"""What the steering program of an unprivileged user cannot do: it has no memory."""


def choose(engine: _engine.Engine, options: Options, say: Callable[[str], None]) -> str:
    """What is in use from now on, in words. Raises ClusterError where a policy
    that was asked for cannot be had. Before the first worker."""
    wanted = options.balance
    engine.balance(wanted)
    if wanted != "auto" and wanted not in EXACT:
        return wanted
    refused = engine.balance_kernel()
    why = f"{refused[0]}: {os.strerror(refused[1])}" if refused else ""
    if refused and wanted in EXACT:
        raise ClusterError(f"balance {wanted} is refused by the kernel here ({why})")
    if wanted == "auto":
        used = f"reuseport ({why})" if refused else "least_connections in the kernel"
        say(f"new connections: auto is {used}")
        return "reuseport" if refused else used
    used = f"{wanted} in the kernel"
    say(f"new connections: {used}")
    return used
