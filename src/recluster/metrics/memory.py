"""How much memory a worker has, with its children."""

from __future__ import annotations

from .._engine import Engine
from .procfacts import facts_of, proportional


def memory_of(engine: Engine, key: int, enough: float) -> int | None:
    """Bytes; None if it has ended. Pages that are shared count in part (PSS) where that can be
    known: the kernel walks over all of them for that, so only if RSS is more than `enough`."""
    facts = facts_of(engine, [key]).get(key)
    if facts is None:
        return None
    if facts.rss <= enough:
        return facts.rss
    weight = proportional(facts.pids)
    return facts.rss if weight is None else weight
