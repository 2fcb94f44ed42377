"""When a worker is replaced though nothing is wrong with it."""

from __future__ import annotations

from .. import checks, quantities
from .field import Field


class Recycling:
    max_rss = Field(
        quantities.size_or_none,
        None,
        "none",
        "SIZE",
        "a worker that has more memory (500M, 1.5G) is replaced, its successor first; looked at "
        "every 10 s, with its children; memory that n processes share counts as 1/n (PSS) where "
        "that can be known",
        live=True,
    )

    max_lifetime = Field(
        checks.seconds_or_none,
        None,
        "none",
        "S",
        "a worker that has served for this long is replaced, its successor first",
        live=True,
    )

    max_connections = Field(
        quantities.count_or_none,
        None,
        "none",
        "N",
        "a worker that got so many connections is replaced, its successor first; looked at every "
        "10 s; only where they are counted (balance least_connections, and all by dispatch)",
        live=True,
    )

    jitter = Field(
        quantities.part,
        0.1,
        "0.1",
        "PART",
        "each worker has its own limits of these three, by up to this part lower, at random",
        live=True,
    )
