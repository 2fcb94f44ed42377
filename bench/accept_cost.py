"""Does steering cost anything? python bench/accept_cost.py [--rounds 100]

Connections per second, one request on each, of the same bare C worker (prefork.c, epoll)

  plain        one SO_REUSEPORT queue per worker, the kernel's hash chooses; no recluster
  plain again  a second such server: what differs from `plain` here is noise
  pass         a C parent that accepts and passes each connection on (SCM_RIGHTS), in turn
  POLICY       under recluster --balance POLICY; POLICY:HOW also --balance-by HOW, and
               POLICY:alone --handover off: its accept is not looked at by the library

all started before the first round and idle but for their turn; each round visits each, in
another order. The generators (two processes of accept_load.c) and the workers fill the
CPUs, so the rate is what all of it costs together: client, kernel, steering, worker.
Turns are short and many, for a machine's speed wanders over seconds. Ratios are to the mean
of the two plain servers in the same round, quartiles over the rounds: those two rows show
the noise. Exit code 1: a bound does not hold for the median.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from common import arguments, compiled, machine, spread
from contestants import ALONE, Contestant, bare, clustered, lone

from recluster.bench import usage
from recluster.bench.measure import Target
from recluster.bench.running import Unavailable
from recluster.options.fields.balance import BALANCED_BY, BALANCES

PLAIN = ("plain", "plain again")
BOUNDS = ["reuseport/plain=0.98", "reuseport/reuseport:alone=0.98"]
POLICIES = [*BALANCES, f"reuseport:{ALONE}"]


@dataclass
class Figures:
    """One value per round."""

    rate: list[float] = field(default_factory=list)
    workers_us: list[float] = field(default_factory=list)
    master_us: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)  # the generators', of a CPU each
    failed: int = 0


def load(program: str, port: int, seconds: float, at_once: int, processes: int) -> list[Any]:
    words = [program, str(port), str(seconds), str(at_once)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(processes)]
    return [json.loads(one.communicate(timeout=seconds + 60)[0]) for one in started]


def one_turn(
    generator: str, target: Target, figures: Figures, seconds: float, at_once: int, processes: int
) -> None:
    def used() -> tuple[float, float]:
        master = usage.single_threaded(target.master) if target.master else 0.0
        return usage.whole(target.pids.values()), master

    before = used()
    said = load(generator, target.address[1], seconds, at_once, processes)
    after = used()
    done = sum(one["connections"] for one in said)
    figures.failed += sum(one["failed"] for one in said)
    figures.rate.append(sum(one["connections"] / one["seconds"] for one in said))
    figures.busy.append(sum(one["cpu"] / one["seconds"] for one in said) / processes)
    figures.workers_us.append((after[0] - before[0]) / max(1, done) * 1e6)
    figures.master_us.append((after[1] - before[1]) / max(1, done) * 1e6)


def contestants(program: str, policies: list[str]) -> list[Contestant]:
    worker = lone(program, "epoll")
    return [
        *(Contestant(name, bare(program, "reuseport")) for name in PLAIN),
        Contestant("pass", bare(program, "round_robin")),
        *(Contestant(policy, clustered(worker, policy)) for policy in policies),
    ]


def ratios(all_figures: dict[str, Figures], one: str, other: str) -> list[float]:
    """By round; `plain` as the other is the mean of both plain servers."""
    if other == "plain":
        pairs = zip(all_figures[PLAIN[0]].rate, all_figures[PLAIN[1]].rate, strict=True)
        base = [statistics.fmean(pair) for pair in pairs]
    else:
        base = all_figures[other].rate
    return [a / b for a, b in zip(all_figures[one].rate, base, strict=True)]


def quartiles(values: list[float], digits: int) -> str:
    parts = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return " / ".join(f"{part:.{digits}f}" for part in parts)


def policy(text: str) -> str:
    """POLICY, POLICY:HOW or POLICY:alone"""
    balance, _, how = text.partition(":")
    if balance not in BALANCES or how not in ("", ALONE, *BALANCED_BY):
        raise ValueError(text)
    return text


def bound(text: str) -> tuple[str, str, float]:
    """POLICY/OTHER=RATIO"""
    names, _, least = text.partition("=")
    one, _, other = names.partition("/")
    return one, other, float(least)


def broken(all_figures: dict[str, Figures], bounds: list[tuple[str, str, float]]) -> list[str]:
    found = []
    for one, other, least in bounds:
        if one in all_figures and other in all_figures:
            median = statistics.median(ratios(all_figures, one, other))
            if median < least:
                found.append(f"{one} / {other} is {median:.3f}, below {least:g}")
    return found + [
        f"{name}: {figures.failed} connections failed"
        for name, figures in all_figures.items()
        if figures.failed
    ]


def show(all_figures: dict[str, Figures]) -> None:
    heads = ("connections/s", "/ plain", "us CPU workers", "us CPU master")
    print(f"\n{'quartiles':18}" + "".join(f"{head:>28}" for head in heads))
    for name, figures in all_figures.items():
        cells = (
            quartiles(figures.rate, 0),
            quartiles(ratios(all_figures, name, "plain"), 3),
            quartiles(figures.workers_us, 1),
            quartiles(figures.master_us, 2),
        )
        print(f"{name:18}" + "".join(f"{cell:>28}" for cell in cells))
    busy = [value for figures in all_figures.values() for value in figures.busy]
    print(f"the generators used {spread(busy)} of a CPU each")


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.2, help="of load per turn")
    parser.add_argument("--at-once", type=int, default=16, help="connections per generator")
    parser.add_argument("--generators", type=int, default=2, help="processes")
    parser.add_argument("--policies", nargs="+", default=POLICIES, type=policy)
    parser.add_argument(
        "--bound", nargs="+", type=bound, default=[bound(text) for text in BOUNDS],
        metavar="ROW/ROW=RATIO", help="least medians of the ratio of two rows",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="each round, raw")
    given = parser.parse_args()
    print(machine())
    program, generator = compiled("prefork.c"), compiled("accept_load.c")
    all_figures: dict[str, Figures] = {}
    with contextlib.ExitStack() as stack:
        targets = {}
        for one in contestants(program, given.policies):
            try:
                targets[one.name] = stack.enter_context(one.start(given.workers))
            except Unavailable as error:
                print(f"SKIPPED: {one.name}: {error}")
        all_figures = {name: Figures() for name in targets}
        order, chance = list(targets), random.Random(1)
        for turn in range(given.rounds + 1):
            chance.shuffle(order)
            for name in order:
                # The first round warms up: it is not counted.
                figures = all_figures[name] if turn else Figures()
                one_turn(
                    generator, targets[name], figures, given.seconds, given.at_once,
                    given.generators,
                )  # fmt: skip
            print(f"round {turn} of {given.rounds}", file=sys.stderr, flush=True)
    show(all_figures)
    if given.json:
        with open(given.json, "w") as file:
            json.dump({name: vars(one) for name, one in all_figures.items()}, file, indent=1)
    print(machine())
    wrong = broken(all_figures, given.bound)
    print("\n".join(f"DOES NOT HOLD: {text}" for text in wrong) or "all bounds hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
