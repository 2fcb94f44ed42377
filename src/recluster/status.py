"""What a cluster looks like now, as JSON can say it. Looks only, changes nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from . import __version__
from .doors import NAMES
from .lifecycle import ENDED

if TYPE_CHECKING:
    from .cluster import Cluster


def _since(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, 3)


Lane = tuple[int, str, bool, int, int, str, int, "int | None"]


def _by_address(lane: Lane) -> tuple[str, int]:
    return lane[1], lane[0]


def _balance_of(cluster: Cluster) -> str:
    """In dispatch also how the workers are told, which their programs decide."""
    how = cluster._alive().balance_how()
    return f"{cluster.options.balance} by {how}" if how else cluster._balance


def status_of(cluster: Cluster) -> dict[str, Any]:
    """Raises RuntimeError if the cluster does not run.

    `reloading` is the generation under way, or None. A worker's `pid` is None
    once it is reaped, for the number may be somebody else's; its lanes stay
    until what waits in them is served. A lane that several workers share
    (`workers`) has no `slot` and no `pid`. `weights`: of slots, where one is not
    1; `connections` of a lane, queued ones included, are None where nobody counts
    them; `canary`: the generation on probation and its part, or None. `next_try` of
    a slot: seconds until the next spawn there, if one is planned. Times are seconds.
    """
    now, people, known = time.monotonic(), cluster._population, cluster._workers
    slots: dict[int, dict[str, Any]] = {}
    for index, slot in people.slots.items():
        if slot.wanted:
            next_try = None if slot.spawn_at is None else round(max(0.0, slot.spawn_at - now), 3)
            slots[index] = {"slot": index, "workers": [], "next_try": next_try}
    pids: dict[int, int | None] = {}
    for key, member in sorted(people.members.items()):
        worker = known.get(key)
        reaped = member.state in ENDED or worker is None or not worker.pid
        pids[key] = None if reaped or worker is None else worker.pid
        slot_facts = slots.setdefault(
            member.slot, {"slot": member.slot, "workers": [], "next_try": None}
        )
        slot_facts["workers"].append(
            {
                "pid": pids[key],
                "generation": member.generation,
                "state": member.state.value,
                "age": _since(member.born, now),
                "ready_for": _since(member.ready_at, now),
                "addresses": sorted(member.addresses),
            }
        )
    lanes = []
    found = sorted(cluster._alive().lanes(), key=_by_address)
    for key, address, live, queued, backlog, pressure, workers, connections in found:
        holder = people.members.get(key)
        one = holder if workers == 1 else None
        lanes.append(
            {
                "address": address,
                "slot": one.slot if one else None,
                "generation": holder.generation if holder else None,
                "pid": pids.get(key) if one else None,
                "workers": workers,
                "live": live,
                "queued": queued,
                "backlog": backlog,
                "pressure": pressure,
                "connections": connections,
            }
        )
    canary = None
    if people.baking and people.baking.canary:
        canary = {"generation": people.baking.generation, "part": people.baking.canary}
    return {
        "pid": os.getpid(),
        "version": __version__,
        "door": NAMES[cluster._spawner.door] if cluster._spawner else None,
        "balance": _balance_of(cluster),
        "generation": people.generation,
        "reloading": people.reloading.generation if people.reloading else None,
        "closing": people.closing,
        "weights": {slot: people.weights[slot] for slot in sorted(people.weights)},
        "canary": canary,
        "slots": [slots[index] for index in sorted(slots)],
        "lanes": lanes,
    }
