"""A plan, carried out: what is there to share is imported, what is not is found.

Owns sys.path while it imports: what the program itself will put there (`notes`) is there
meanwhile, what a module has put there stays.
"""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import dataclass, field

from .audit import Audit, LeftOut
from .plan import Plan, Step

ROUNDS_MOST = 8


@dataclass
class Outcome:
    error: BaseException | None = None  # of a module that must be
    missing: list[str] = field(default_factory=list)  # not there any more
    again: Plan | None = None  # a fresh process is to do this instead


def _borrow(path: list[str], borrowed: list[str]) -> None:
    here = os.getcwd()
    for at, entry in enumerate(path):
        place = here + entry[1:] if entry[:1] == "." else entry
        if place not in sys.path:
            sys.path.insert(at, place)
            borrowed.append(place)


def _is_itself_missing(error: BaseException, name: str) -> bool:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _import_all(plan: Plan, audit: Audit, outcome: Outcome) -> None:
    borrowed: list[str] = []
    for step in plan.steps:
        if not isinstance(step, str):
            _borrow(step, borrowed)
        elif not audit.is_left(step) and step not in sys.modules:
            try:
                __import__(step)
            except LeftOut:
                pass  # whoever has asked for it is left, too
            except BaseException as error:
                if step in plan.must:
                    outcome.error = error
                    return
                if _is_itself_missing(error, step):
                    outcome.missing.append(step)
    for entry in borrowed:
        if entry in sys.path:
            sys.path.remove(entry)


def carry_out(plan: Plan) -> Outcome:
    """The collector would look at all of it again and again, and find it in use."""
    outcome, threshold = Outcome(), gc.get_threshold()
    gc.set_threshold(0)
    audit = Audit(set(plan.left))
    with audit:
        _import_all(plan, audit, outcome)
    if gc.get_threshold()[0] == 0:
        gc.set_threshold(*threshold)
    culprits = {name: done for name, done in audit.blamed.items() if name}
    left = {*plan.left, *culprits, *audit.also}
    if outcome.error is None and len(left) > len(set(plan.left)):
        begun: list[Step] = [*audit.order] if plan.rounds == 0 else []
        again = Plan(
            steps=[*plan.steps, *begun] if plan.rounds < ROUNDS_MOST else [],
            must=plan.must,
            left=sorted(left),
            blamed={**plan.blamed, **culprits},
            rounds=plan.rounds + 1,
        )
        outcome.again = again
    return outcome
