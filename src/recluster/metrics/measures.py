"""What is measured of a cluster, and its text for Prometheus. Looks only, changes nothing.

FAMILIES is what docs/metrics.md shows (a test compares).
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from .. import __version__
from .._engine import PRESSURES
from ..base.states import State
from ..start.doors import NAMES
from .census import Known
from .openmetrics import Family, Text
from .procfacts import PAGE, read
from .status import health_of, running_pids
from .tally import BUCKETS

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..population.members import Member

P = "recluster_"
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"

BUILD = Family(P + "build_info", GAUGE, "Always 1.", "version, python, door, balance")
START = Family(P + "start_time_seconds", GAUGE, "When the master began, Unix time.")
MASTER_CPU = Family(P + "master_cpu_seconds", COUNTER, "CPU time of the master itself.")
MASTER_RSS = Family(P + "master_resident_bytes", GAUGE, "Memory of the master itself (RSS).")
MOLD_RSS = Family(
    P + "mold_resident_bytes", GAUGE, "Memory (RSS) of each mold (--preload).", "generation"
)
GENERATION = Family(
    P + "generation", GAUGE, "The generation that serves: 1, and one more by reload."
)
RELOADING = Family(P + "reloading", GAUGE, "1 while a reload is under way or on probation.")
SLOTS = Family(
    P + "slots", GAUGE, "Slots that are wanted, of these serving, and drained ones.", "state"
)
WORKERS = Family(P + "workers", GAUGE, "Workers by state, as in `recluster status`.", "state")
LANES = Family(
    P + "lanes",
    GAUGE,
    "Lanes of serving workers by pressure: taking, busy and blocked are at work.",
    "pressure",
)
RELOADS = Family(
    P + "reloads",
    COUNTER,
    "Reloads that are over; rolled_back: clients had met the new code.",
    "result",
)
RELOAD_SECONDS = Family(
    P + "reload_seconds", HISTOGRAM, "From the wish to the end of a reload that went well."
)
LAST_RELOAD = Family(
    P + "last_reload_timestamp_seconds", GAUGE, "When the last reload was over, Unix time."
)
LAST_OK = Family(P + "last_reload_successful", GAUGE, "1 if the last reload went well, else 0.")
QUEUE = Family(
    P + "queue_length", GAUGE, "Connections that wait to be accepted, in all lanes.", "address"
)
BACKLOG = Family(P + "backlog", GAUGE, "How many may wait, in all lanes.", "address")
FULLEST = Family(
    P + "queue_fullest_ratio",
    GAUGE,
    "Of the fullest lane: its queue through its backlog.",
    "address",
)
DRAINING = Family(
    P + "draining_connections",
    GAUGE,
    "Connections that retired workers still have open.",
    "generation",
)
CONNECTIONS = Family(
    P + "connections",
    GAUGE,
    "Connections open, queued ones included; where they are counted.",
    "slot",
)
ACCEPTED = Family(
    P + "accepted", COUNTER, "Connections that workers got; where they are counted.", "slot"
)
INFO = Family(P + "worker_info", GAUGE, "Always 1.", "slot, pid, generation, state")
BORN = Family(
    P + "worker_start_time_seconds", GAUGE, "When the worker that serves began, Unix time.", "slot"
)
STARTS = Family(P + "worker_starts", COUNTER, "Workers that were started.", "slot")
EXITS = Family(
    P + "worker_exits",
    COUNTER,
    "Workers that ended: asked, boot (before ready), ended (code 0), error (another code), "
    "signal, hung (and ended for it), killed (not gone in time).",
    "slot, reason",
)
RESTARTS = Family(
    P + "worker_restarts", COUNTER, "Workers that ended though nobody had asked.", "slot"
)
RECYCLES = Family(
    P + "worker_recycles",
    COUNTER,
    "Workers that were replaced because they were old, large or worn: lifetime, rss, connections.",
    "slot, reason",
)
HANGS = Family(P + "hangs", COUNTER, "Times that a worker stopped taking connections.", "slot")
CPU = Family(
    P + "worker_cpu_seconds",
    COUNTER,
    "CPU time of workers and their children, also ended ones.",
    "slot",
)
RSS = Family(P + "worker_resident_bytes", GAUGE, "Memory (RSS) of all processes.", "slot")
PSS = Family(
    P + "worker_proportional_bytes",
    GAUGE,
    "Memory, a page that n processes share as 1/n (PSS); may be minutes old.",
    "slot",
)
PROCESSES = Family(P + "worker_processes", GAUGE, "Processes: workers and their children.", "slot")
FDS = Family(P + "worker_open_fds", GAUGE, "Open descriptors of all processes.", "slot")
LOST = Family(P + "log_lines_lost", COUNTER, "Lines of log and events that nobody took in time.")

PYTHON = ".".join(map(str, sys.version_info[:3]))

FAMILIES = tuple(one for one in list(globals().values()) if isinstance(one, Family))

WORDS = {state: state.value for state in State if state is not State.GONE}
LEAVING = (State.SETTLING, State.DRAINING, State.STOPPING, State.ABORTED, State.KILLED)


def table() -> str:
    """The metrics as docs/metrics.md shows them."""
    rows = ["| name | type | labels | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    for one in FAMILIES:
        cells = (f"`{one.sample}`", one.kind, one.labels, one.unit, one.help)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _slots(cluster: Cluster) -> dict[str, float]:
    _, serving, wanted = health_of(cluster, None)
    drained = sum(1 for one in cluster._population.slots.values() if one.drained)
    return {"wanted": wanted, "serving": serving, "drained": drained}


def text_of(cluster: Cluster, known: Known) -> str:
    """`known`: what a census has found. Raises RuntimeError if the cluster does not run."""
    out = Text()
    _of_master(cluster, out)
    _of_reloads(cluster, out)
    _of_lanes(cluster, out)
    _of_workers(cluster, known, out)
    out.one(LOST, sum(output.lines_lost for output in cluster._outputs))
    return out.end()


def _of_master(cluster: Cluster, out: Text) -> None:
    people, spawner = cluster._population, cluster._spawner
    door = NAMES[spawner.door] if spawner else ""
    out.by(BUILD, {(__version__, PYTHON, door, cluster._balance): 1})
    out.one(START, cluster._measuring.tally.began)
    out.one(MASTER_CPU, time.process_time())
    out.one(MASTER_RSS, int(read("/proc/self/statm").split()[1]) * PAGE)
    out.by(MOLD_RSS, _molds(cluster))
    out.one(GENERATION, people.generation)
    out.one(RELOADING, bool(people.reloading or people.baking))
    out.by(SLOTS, _slots(cluster))
    states = dict.fromkeys(WORDS.values(), 0)
    for member in people.members.values():
        if member.state is not State.GONE:
            states[WORDS[member.state]] += 1
    out.by(WORKERS, states)


def _molds(cluster: Cluster) -> dict[int, int]:
    molds = cluster._nursery.shown() if cluster._nursery else []
    return {one["generation"]: one["rss"] for one in molds if one["rss"] is not None}


def _of_reloads(cluster: Cluster, out: Text) -> None:
    tally = cluster._measuring.tally
    out.by(RELOADS, tally.reloads)
    within = dict(zip(BUCKETS, tally.within, strict=True))
    out.histogram(RELOAD_SECONDS, within, tally.reloads["ok"], tally.reload_seconds)
    if tally.last_reload:
        out.one(LAST_RELOAD, tally.last_reload[0])
        out.one(LAST_OK, tally.last_reload[1])


def _of_lanes(cluster: Cluster, out: Text) -> None:
    queued: defaultdict[str, int] = defaultdict(int)
    backlog: defaultdict[str, int] = defaultdict(int)
    fullest: defaultdict[str, float] = defaultdict(float)
    pressures = dict.fromkeys(PRESSURES, 0)
    members = cluster._population.members
    for key, address, _, waiting, room, pressure, _, _ in cluster._alive().lanes():
        queued[address] += waiting
        backlog[address] += room
        fullest[address] = max(fullest[address], waiting / room if room else 0.0)
        pressures[pressure] += key in members and members[key].state is State.SERVING
    out.by(LANES, pressures)
    out.by(QUEUE, queued)
    out.by(BACKLOG, backlog)
    out.by(FULLEST, fullest)
    draining: defaultdict[int, int] = defaultdict(int)
    for member in members.values():
        if member.state in LEAVING and member.connections is not None and member.connections >= 0:
            draining[member.generation] += member.connections
    out.by(DRAINING, draining)


def _of_workers(cluster: Cluster, known: Known, out: Text) -> None:
    people, tally, engine = cluster._population, cluster._measuring.tally, cluster._alive()
    running = _running(cluster)
    rss: defaultdict[int, int] = defaultdict(int)
    processes: defaultdict[int, int] = defaultdict(int)
    fds: defaultdict[int, int] = defaultdict(int)
    pss: dict[int, int | None] = {}
    cpu: defaultdict[int, float] = defaultdict(float, tally.cpu)
    connections: defaultdict[int, int] = defaultdict(int)
    accepted: defaultdict[int, int] = defaultdict(int, tally.accepted)
    info: dict[tuple[int, int, int, str], int] = {}
    for member, pid in running:
        slot = member.slot
        _, got, open_ = engine.counts(member.id)
        if got is not None:
            accepted[slot] += got
        if open_ is not None:
            connections[slot] += open_
        info[slot, pid, member.generation, WORDS[member.state]] = 1
        facts = known.get(member.id)
        if facts is None:
            continue
        cpu[slot] += facts.cpu
        rss[slot] += facts.rss
        processes[slot] += len(facts.pids)
        if facts.fds is not None:
            fds[slot] += facts.fds
        before = pss.get(slot, 0)
        pss[slot] = None if before is None or facts.pss is None else before + facts.pss
    out.by(CONNECTIONS, connections)
    out.by(ACCEPTED, accepted)
    out.by(INFO, info)
    out.by(BORN, _births(cluster))
    out.by(STARTS, tally.starts)
    out.by(EXITS, tally.exits)
    out.by(RECYCLES, tally.recycles)
    out.by(RESTARTS, {slot.index: slot.restarts for slot in people.slots.values()})
    out.by(HANGS, {slot: tally.hangs[slot] for slot in people.slots})
    out.by(CPU, cpu)
    out.by(RSS, rss)
    out.by(PSS, {slot: one for slot, one in pss.items() if one is not None})
    out.by(PROCESSES, processes)
    out.by(FDS, fds)


def _running(cluster: Cluster) -> list[tuple[Member, int]]:
    members = cluster._population.members
    return [(members[key], pid) for key, pid in running_pids(cluster) if key in members]


def _births(cluster: Cluster) -> dict[int, float]:
    since = time.time() - time.monotonic()
    slots = cluster._population.slots.items()
    return {index: round(one.serving.born + since, 3) for index, one in slots if one.serving}
