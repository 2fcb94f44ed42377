"""A master one of whose handlers goes wrong once: faulty.py WHERE WHEN [options] FILE ...

WHERE: a name of a handler of `handlers` or `executor` ("_exit"), "spawn", "notice", "tick",
"signal" or "control". WHEN: `before` it has done anything, `after` it has done all, or
`always` (before). "recluster: fault in WHERE" on standard error says that it was hit.
"""

import os
import sys

from recluster.control.control import Control
from recluster.host.actions import SignalActions
from recluster.master import executor, handlers
from recluster.master.publisher import Publisher
from recluster.master.supervisor import Supervisor
from recluster.population import population, recycling
from recluster.verbs import cli

PLACES = {
    "spawn": (Supervisor, "_spawn"),
    "notice": (Publisher, "notice"),
    "tick": (population, "tick"),
    "signal": (SignalActions, "act"),
    "control": (Control, "_asked"),
}
HANDLERS = (handlers.HANDLERS, executor.HANDLERS)
NAMES = [*PLACES, *(handler.__name__ for table in HANDLERS for handler in table.values())]


class Fault(Exception):
    pass


def faulty(handler, where, when):
    hit = []

    def call(*arguments):
        strikes = when == "always" or not hit
        hit.append(True)
        if strikes and when != "after":
            os.write(2, f"recluster: fault in {where}\n".encode())
            raise Fault(where)
        result = handler(*arguments)
        if strikes:
            os.write(2, f"recluster: fault in {where}\n".encode())
            raise Fault(where)
        return result

    return call


def main():
    where, when, *words = sys.argv[1:]
    sys.argv[1:] = words
    recycling.MEASURE_EVERY = 0.1
    if where in PLACES:
        owner, name = PLACES[where]
        setattr(owner, name, faulty(getattr(owner, name), where, when))
    for table in HANDLERS:
        for key, handler in table.items():
            if handler.__name__ == where:
                table[key] = faulty(handler, where, when)
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
