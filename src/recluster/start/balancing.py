"""Who implements the balance policy here: the choice at the start."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from .doors import ClusterError

if TYPE_CHECKING:
    from .. import _engine
    from ..options import Options

UNCOUNTED = ("reuseport", "round_robin in the kernel")
EXACT = ("round_robin", "least_connections")
"""What the steering program of an unprivileged user cannot do: it has no memory."""


def choose(engine: _engine.Engine, options: Options, say: Callable[[str], None]) -> str:
    """What is in use from now on, in words. Raises ClusterError where a policy
    that was asked for cannot be had. Before the first worker."""
    used = _chosen(engine, options, say)
    if options.max_connections and used in UNCOUNTED:
        say(
            "max_connections: nobody counts them here, so no worker is replaced for it; balance "
            "least_connections would, or balance_by dispatch"
        )
    return used


def _chosen(engine: _engine.Engine, options: Options, say: Callable[[str], None]) -> str:
    engine.balance(options.balance)
    if options.balance == "auto":
        return _auto(engine, say)
    if options.balance not in EXACT:
        return options.balance
    if options.balance_by != "dispatch":
        why = _kernel_refuses(engine)
        if why is None:
            used = f"{options.balance} in the kernel"
            say(f"new connections: {used}")
            return used
        if options.balance_by == "kernel":
            raise ClusterError(f"balance {options.balance} is refused by the kernel here ({why})")
    try:
        engine.balance_dispatch()
    except OSError as error:
        raise ClusterError(f"balance {options.balance}: {error.strerror}") from None
    return f"{options.balance} by dispatch"


def _kernel_refuses(engine: _engine.Engine) -> str | None:
    refused = engine.balance_kernel()
    return None if refused is None else f"{refused[0]}: {os.strerror(refused[1])}"


def _auto(engine: _engine.Engine, say: Callable[[str], None]) -> str:
    """Who has the fewest connections, where they may be counted; else at random. In
    both who is busy or congested is avoided (csrc/load/free.c, csrc/watch/congestion.c)."""
    why = _kernel_refuses(engine)
    if why is None:
        say("new connections: auto is least_connections in the kernel")
        return "least_connections in the kernel"
    say(f"new connections: auto is reuseport (the kernel may not count here: {why})")
    return "reuseport"
