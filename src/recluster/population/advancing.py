"""What follows from whatever has happened, in this order. Pure."""

from __future__ import annotations

from .cutover import proceed
from .healing import replace_leaving
from .holding import attend, miss_claims
from .recycling import wear
from .state import Population


def advance(people: Population, now: float) -> None:
    proceed(people, now)
    replace_leaving(people, now)
    attend(people, now)
    miss_claims(people, now)
    wear(people, now)
