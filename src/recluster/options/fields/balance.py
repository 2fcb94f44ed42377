"""Who gets a new connection."""

from __future__ import annotations

from .. import checks
from .field import Field

BALANCES = (
    "auto",
    "reuseport",
    "shared",
    "source_ip",
    "weighted",
    "round_robin",
    "least_connections",
)
BALANCED_BY = ("auto", "kernel", "dispatch")


class Balance:
    balance = Field(
        checks.one_of(*BALANCES),
        "auto",
        "auto",
        "POLICY",
        "which worker gets a new connection: reuseport (any, at random), shared (whoever "
        "accepts first: one queue for all), source_ip (by the client's address, always the "
        "same), weighted (at random, by weight), round_robin (each in turn), least_connections "
        "(who has the fewest), auto (the best that can be done here)",
        brief="reuseport, shared, source_ip, weighted, round_robin, least_connections [auto]",
    )

    weights = Field(
        checks.weights_of,
        None,
        "1 each",
        "SLOT=W,...",
        "with balance weighted: a slot's part of new connections against the others'; 0: none",
        brief="with --balance weighted: a slot's part",
        live=True,
    )

    balance_by = Field(
        checks.one_of(*BALANCED_BY),
        "auto",
        "auto",
        "HOW",
        "who does round_robin and least_connections: kernel (eBPF; needs CAP_BPF, the second "
        "CAP_NET_ADMIN too), dispatch (the master hands connections out), auto (the kernel where "
        "it allows that)",
    )
