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
    engine.balance(options.balance)
    if options.balance not in EXACT:
        return "reuseport" if options.balance == "auto" else options.balance
    refused = engine.balance_kernel()
    if refused is not None:
        why = f"{refused[0]}: {os.strerror(refused[1])}"
        raise ClusterError(f"balance {options.balance} is refused by the kernel here ({why})")
    used = f"{options.balance} in the kernel"
    say(f"new connections: {used}")
    return used
