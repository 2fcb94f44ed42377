"""numpy's global random numbers, which would be the same in all workers of a mold.

(Those of module random seed themselves anew after a fork.) `numpy.random.seed()` in a worker runs
code that unshares half a MiB. So the mold finds where the state of the generator lies, and a worker
writes other bytes there: each is as good as any.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from .. import _engine

TWISTER = "MT19937"


def prepared() -> Callable[[], object] | None:
    """In a mold, before it forks: what a worker is to call."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is None:
        return None
    try:
        state = numpy.get_state(legacy=False)
        if state["bit_generator"] != TWISTER:
            return _other(numpy)
        numpy.seed()  # no half of a pair of normal numbers is left over
        state = numpy.get_state(legacy=False)["state"]["key"].tobytes()
        capsule = numpy.mtrand._rand._bit_generator.capsule
        if _engine.random_state_is(capsule, state):
            size = len(state)
            return lambda: _engine.set_random_state(capsule, os.urandom(size))
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # another numpy than those we know
    seed: Callable[[], object] | None = getattr(numpy, "seed", None)
    return seed


def _other(numpy: Any) -> Callable[[], object]:
    """The program has chosen another generator (numpy.random.set_bit_generator)."""
    generator = numpy.get_bit_generator()

    def seed() -> None:
        generator.state = type(generator)().state

    return seed
