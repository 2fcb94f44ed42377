"""What a cluster looks like now, as JSON can say it. Looks only, changes nothing."""

from __future__ import annotations

import os
import time
from typing import Any

from .. import __version__
from .._engine import PRESSURES
from ..population.lifecycle import ENDED
from .census import Known
from .master import Master
from .procfacts import Facts


def _since(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, 3)


def _reload_told(last: dict[str, Any] | None, now: float) -> dict[str, Any] | None:
    if last is None:
        return None
    return {**{key: last[key] for key in ("ok", "why", "generation")}, "ago": now - last["at"]}


def _new(index: int) -> dict[str, Any]:
    return {
        "slot": index,
        "workers": [],
        "next_try": None,
        "drained": False,
        "restarts": 0,
        "last_error": None,
        "last_exit": None,
        "cpu": 0.0,
        "accepted": None,
    }


Lane = tuple[int, str, bool, int, int, str, int, "int | None"]


def _by_address(lane: Lane) -> tuple[str, int]:
    return lane[1], lane[0]


def _balance_of(master: Master) -> str:
    """In dispatch also how the workers are told, which their programs decide."""
    how = master.alive().balance_how()
    return f"{master.options.balance} by {how}" if how else master.balance


def health_of(master: Master, least: int | None) -> tuple[str, int, int]:
    """(ready, degraded or down; how many slots serve; how many should). Who hangs does not
    serve, and in a shutdown nobody is to be sent there."""
    people = master.population
    kept = [slot.serving for slot in people.slots.values() if slot.wanted and not slot.surplus]
    serving = len([one for one in kept if one and one.hung_since is None])
    wanted = len(kept) if least is None else least
    if not serving or people.shutting_down:
        return "down", serving, wanted
    return "ready" if serving >= wanted else "degraded", serving, wanted


def running_pids(master: Master) -> list[tuple[int, int]]:
    """(key, pid) of the workers that are not reaped: those numbers are theirs."""
    members, found = master.population.members, []
    for key, worker in master.workers.items():
        member = members.get(key)
        if worker.pid and member and member.state not in ENDED:
            found.append((key, worker.pid))
    return found


def health_line(master: Master, least: object) -> str:
    """Not JSON: whoever asks for it is in haste."""
    master.alive()
    known = least if isinstance(least, int) and least > 0 else None
    state, serving, wanted = health_of(master, known)
    line = f"{state} {serving} of {wanted} slots serve"
    return f"{line}, shutting down" if master.population.shutting_down else line


def _look_of(master: Master, key: int, known: Known) -> dict[str, Any]:
    """Memory, CPU time and connections of a worker that runs, where they are known."""
    facts = known.get(key) or Facts([])
    _, accepted, connections = master.alive().counts(key)
    return {
        "processes": len(facts.pids),
        "rss": facts.rss or None,
        "pss": facts.pss,
        "cpu": round(facts.cpu, 2),
        "connections": connections,
        "accepted": accepted,
        "pressure": None,
        "queued": 0,
    }


def _add(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more


def status_of(master: Master, known: Known) -> dict[str, Any]:
    """`known`: what a census has found of the workers. Raises RuntimeError if the cluster does
    not run.

    `reloading` is the generation under way, or None. A worker's `pid` is None
    once it is reaped, for the number may be somebody else's; its lanes stay
    until what waits in them is served. A lane that several workers share
    (`workers`) has no `slot` and no `pid`. `weights`: of slots, where one is not
    1; `receives`: whether a worker can be given a connection; `connections` of a lane,
    queued ones included, are None where nobody counts them; `unclaimed`: addresses of
    --bind and LISTEN_FDS where no worker listens; `canary`: the
    generation on probation and its part, or None; `molds`: of --preload, with what they leave
    to the workers. `next_try` of a slot: seconds until
    the next spawn there, if one is planned; `restarts`: workers that ended there though
    nobody had asked; `cpu` and `accepted`: of all its workers, ended ones too. A worker's `rss`
    and `pss` (bytes), `connections` and `accepted` are None where they cannot be known; `queued`
    and `pressure` (the worst) are of the lanes that it has alone. Times are seconds,
    `at` those of a clock that only rates are made of.
    """
    now, people, workers = time.monotonic(), master.population, master.workers
    tally = master.tally
    slots: dict[int, dict[str, Any]] = {}
    for index, slot in people.slots.items():
        if slot.wanted:
            next_try = None if slot.spawn_at is None else round(max(0.0, slot.spawn_at - now), 3)
            slots[index] = {**_new(index), "next_try": next_try}
        elif slot.drained:
            slots[index] = {**_new(index), "drained": True}
    pids: dict[int, int | None] = {}
    told: dict[int, dict[str, Any]] = {}
    for key, member in sorted(people.members.items()):
        worker = workers.get(key)
        reaped = member.state in ENDED or worker is None or not worker.pid
        pids[key] = None if reaped or worker is None else worker.pid
        told[key] = {
            "pid": pids[key],
            "generation": member.generation,
            "state": member.state.value,
            "age": _since(member.born, now),
            "ready_for": _since(member.ready_at, now),
            "addresses": sorted(member.addresses),
            "receives": master.alive().receives(key),
            **_look_of(master, key, known if pids[key] else {}),
        }
        slots.setdefault(member.slot, _new(member.slot))["workers"].append(told[key])
    for index, facts in slots.items():
        facts["restarts"] = people.slots[index].restarts
        running = [one for one in facts["workers"] if one["pid"]]
        cpu = tally.cpu.get(index, 0.0) + sum(one["cpu"] for one in running)
        facts["cpu"] = round(cpu, 2)
        facts["accepted"] = tally.accepted.get(index)
        for one in running:
            facts["accepted"] = _add(facts["accepted"], one["accepted"])
        if index in tally.last_exit:
            at, what = tally.last_exit[index]
            facts["last_exit"] = {"ago": _since(at, now), "what": what}
        error = people.slots[index].last_error
        if error:
            facts["last_error"] = {"ago": _since(error[0], now), "what": error[1]}
    lanes = []
    found = sorted(master.alive().lanes(), key=_by_address)
    for key, address, live, queued, backlog, pressure, sharers, connections in found:
        holder = people.members.get(key)
        one = holder if sharers == 1 else None
        if one and pids.get(key):
            told[key]["queued"] += queued
            before = told[key]["pressure"] or pressure
            told[key]["pressure"] = max(pressure, before, key=PRESSURES.index)
        lanes.append(
            {
                "address": address,
                "slot": one.slot if one else None,
                "generation": holder.generation if holder else None,
                "pid": pids.get(key) if one else None,
                "workers": sharers,
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
    health, serving, wanted = health_of(master, None)
    return {
        "at": round(now, 6),
        "name": master.name,
        "pid": os.getpid(),
        "health": health,
        "serving": serving,
        "wanted": wanted,
        "metrics": master.metrics_address,
        "last_reload": _reload_told(people.last_reload, now),
        "version": __version__,
        "door": master.door,
        "balance": _balance_of(master),
        "generation": people.generation,
        "reloading": people.reloading.generation if people.reloading else None,
        "closing": people.closing,
        "unclaimed": sorted(people.unclaimed),
        "weights": {slot: people.weights[slot] for slot in sorted(people.weights)},
        "canary": canary,
        "molds": master.molds(),
        "slots": [slots[index] for index in sorted(slots)],
        "lanes": lanes,
    }
