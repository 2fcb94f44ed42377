"""What is measured of a master, and its text for Prometheus. Looks only, changes nothing.

FAMILIES is what docs/metrics.md shows (a test compares).
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

from .. import __version__
from .._engine import PRESSURES
from ..base.states import State
from .census import Known
from .master import Master
from .openmetrics import Family, Text
from .procfacts import PAGE, read
from .status import health_of, running_pids
from .tally import BUCKETS

P = "recluster_"


def gauge(name: str, text: str, labels: str = "") -> Family:
    return Family(P + name, "gauge", text, labels)


def counter(name: str, text: str, labels: str = "") -> Family:
    return Family(P + name, "counter", text, labels)


BUILD = gauge("build_info", "Always 1.", "version, python, door, balance")
START = gauge("start_time_seconds", "When the master began, Unix time.")
MASTER_CPU = counter("master_cpu_seconds", "CPU time of the master itself.")
MASTER_RSS = gauge("master_resident_bytes", "Memory of the master itself (RSS).")
MOLD_RSS = gauge("mold_resident_bytes", "Memory (RSS) of each mold (--preload).", "generation")
GENERATION = gauge("generation", "The generation that serves: 1, and one more by reload.")
RELOADING = gauge("reloading", "1 while a reload is under way or on probation.")
SLOTS = gauge("slots", "Slots that are wanted, of these serving, and drained ones.", "state")
WORKERS = gauge("workers", "Workers by state, as in `recluster status`.", "state")
LANES = gauge(
    "lanes",
    "Lanes of serving workers by pressure: taking, busy and blocked are at work.",
    "pressure",
)
RELOADS = counter(
    "reloads", "Reloads that are over; rolled_back: clients had met the new code.", "result"
)
RELOAD_SECONDS = Family(
    P + "reload_seconds", "histogram", "From the wish to the end of a reload that went well."
)
LAST_RELOAD = gauge("last_reload_timestamp_seconds", "When the last reload was over, Unix time.")
LAST_OK = gauge("last_reload_successful", "1 if the last reload went well, else 0.")
QUEUE = gauge("queue_length", "Connections that wait to be accepted, in all lanes.", "address")
BACKLOG = gauge("backlog", "How many may wait, in all lanes.", "address")
FULLEST = gauge(
    "queue_fullest_ratio", "Of the fullest lane: its queue through its backlog.", "address"
)
DRAINING = gauge(
    "draining_connections", "Connections that retired workers still have open.", "generation"
)
CONNECTIONS = gauge(
    "connections", "Connections open, queued ones included; where they are counted.", "slot"
)
ACCEPTED = counter("accepted", "Connections that workers got; where they are counted.", "slot")
INFO = gauge("worker_info", "Always 1.", "slot, pid, generation, state")
BORN = gauge("worker_start_time_seconds", "When the worker that serves began, Unix time.", "slot")
STARTS = counter("worker_starts", "Workers that were started.", "slot")
EXITS = counter(
    "worker_exits",
    "Workers that ended: asked, boot (before ready), ended (code 0), error (another code), "
    "signal, hung (and ended for it), killed (not gone in time).",
    "slot, reason",
)
RESTARTS = counter("worker_restarts", "Workers that ended though nobody had asked.", "slot")
RECYCLES = counter(
    "worker_recycles",
    "Workers that were replaced because they were old, large or worn: lifetime, rss, connections.",
    "slot, reason",
)
HANGS = counter("hangs", "Times that a worker stopped taking connections.", "slot")
CPU = counter(
    "worker_cpu_seconds", "CPU time of workers and their children, also ended ones.", "slot"
)
RSS = gauge("worker_resident_bytes", "Memory (RSS) of all processes.", "slot")
PSS = gauge(
    "worker_proportional_bytes",
    "Memory, a page that n processes share as 1/n (PSS); may be minutes old.",
    "slot",
)
PROCESSES = gauge("worker_processes", "Processes: workers and their children.", "slot")
FDS = gauge("worker_open_fds", "Open descriptors of all processes.", "slot")
LOST = counter("log_lines_lost", "Lines of log and events that nobody took in time.")

PYTHON = ".".join(map(str, sys.version_info[:3]))

FAMILIES = tuple(one for one in list(globals().values()) if isinstance(one, Family))

WORDS: dict[State, str] = {state: state.value for state in State if state is not State.GONE}
LEAVING = (State.SETTLING, State.DRAINING, State.STOPPING, State.ABORTED, State.KILLED)


def table() -> str:
    """The metrics as docs/metrics.md shows them."""
    rows = ["| name | type | labels | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    for one in FAMILIES:
        cells = (f"`{one.sample}`", one.kind, one.labels, one.unit, one.help)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _slots(master: Master) -> dict[str, float]:
    _, serving, wanted = health_of(master, None)
    drained = len([one for one in master.population.slots.values() if one.drained])
    return {"wanted": wanted, "serving": serving, "drained": drained}


def text_of(master: Master, known: Known, out: Text) -> str:
    """`known`: what a census has found. Raises RuntimeError if the cluster does not run."""
    out.begin()
    _of_master(master, out)
    _of_reloads(master, out)
    _of_lanes(master, out)
    _of_workers(master, known, out)
    out.one(LOST, sum(output.lines_lost for output in master.outputs))
    return out.end()


def _of_master(master: Master, out: Text) -> None:
    people = master.population
    out.by(BUILD, {(__version__, PYTHON, master.door or "", master.balance): 1})
    out.one(START, master.tally.began)
    out.one(MASTER_CPU, time.process_time())
    out.one(MASTER_RSS, int(read("/proc/self/statm").split()[1]) * PAGE)
    out.by(MOLD_RSS, _molds(master))
    out.one(GENERATION, people.generation)
    out.one(RELOADING, bool(people.reloading or people.baking))
    out.by(SLOTS, _slots(master))
    states = dict.fromkeys(WORDS.values(), 0)
    for member in people.members.values():
        if member.state is not State.GONE:
            states[WORDS[member.state]] += 1
    out.by(WORKERS, states)


def _molds(master: Master) -> dict[int, int]:
    shown = master.molds()
    return {one["generation"]: one["rss"] for one in shown if one["rss"] is not None}


def _of_reloads(master: Master, out: Text) -> None:
    tally = master.tally
    out.by(RELOADS, tally.reloads)
    within = dict(zip(BUCKETS, tally.within, strict=True))
    out.histogram(RELOAD_SECONDS, within, tally.reloads["ok"], tally.reload_seconds)
    if tally.last_reload:
        out.one(LAST_RELOAD, tally.last_reload[0])
        out.one(LAST_OK, tally.last_reload[1])


def _of_lanes(master: Master, out: Text) -> None:
    queued: defaultdict[str, int] = defaultdict(int)
    backlog: defaultdict[str, int] = defaultdict(int)
    fullest: defaultdict[str, float] = defaultdict(float)
    pressures = dict.fromkeys(PRESSURES, 0)
    members = master.population.members
    for key, address, _, waiting, room, pressure, _, _ in master.alive().lanes():
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


def _of_workers(master: Master, known: Known, out: Text) -> None:
    people, tally, engine = master.population, master.tally, master.alive()
    rss: defaultdict[int, int] = defaultdict(int)
    processes: defaultdict[int, int] = defaultdict(int)
    fds: defaultdict[int, int] = defaultdict(int)
    pss: dict[int, int | None] = {}
    cpu: defaultdict[int, float] = defaultdict(float, tally.cpu)
    connections: defaultdict[int, int] = defaultdict(int)
    accepted: defaultdict[int, int] = defaultdict(int, tally.accepted)
    info: dict[tuple[int, int, int, str], int] = {}
    for key, pid in running_pids(master):
        member = people.members[key]
        slot = member.slot
        _, got, open_ = engine.counts(key)
        if got is not None:
            accepted[slot] += got
        if open_ is not None:
            connections[slot] += open_
        info[slot, pid, member.generation, WORDS[member.state]] = 1
        facts = known.get(key)
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
    out.by(BORN, _births(master))
    out.by(STARTS, tally.starts)
    out.by(EXITS, tally.exits)
    out.by(RECYCLES, tally.recycles)
    out.by(RESTARTS, {slot.index: slot.restarts for slot in people.slots.values()})
    out.by(HANGS, {slot: tally.hangs.get(slot, 0) for slot in people.slots})
    out.by(CPU, cpu)
    out.by(RSS, rss)
    out.by(PSS, {slot: one for slot, one in pss.items() if one is not None})
    out.by(PROCESSES, processes)
    out.by(FDS, fds)


def _births(master: Master) -> dict[int, float]:
    since = round(time.time() - time.monotonic(), 3)  # as it was, so that the lines are
    slots = master.population.slots.items()
    return {index: one.serving.born + since for index, one in slots if one.serving}
