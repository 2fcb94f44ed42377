"""The master's side of the molds: they are made, asked and heard here.

Owns what `policy` wants, carried out on the engine, where a mold is a worker without a door
whose number no worker has. It is exec'd, not forked from the master: so it has nothing of
the master's or of older molds, it works beside a host's threads, and with variables that an
interpreter reads when it starts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from errno import ENOEXEC
from typing import Any

from .. import _engine
from ..base.text import json_of
from ..child import preloaded
from ..child.launch import Program
from ..events.view import Worker
from ..options import Options
from ..options.checks import AUTO_MODULES as AUTO
from ..output.eventlog import EventLog
from ..population import commands, population
from ..population.commands import Spawn
from ..population.state import Population
from .plan import Plan, merged
from .policy import Ask, Command, End, Fail, Make, Molds
from .target import can_be, mold_environ, run_of

FIRST = 1 << 31  # workers count from 1
RUN = os.path.join(os.path.dirname(__file__), "run.py")
COMMAND = "recluster.mold"
BARREN_MOST = 3  # molds that die of what they have imported, before nothing is
NO_DOOR = -1  # of the worker's own: the library is it
FROM_MASTER = "-"  # a mold's plan
ENDINGS = (commands.Leave, commands.Abort, commands.Kill)


def _resident(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def how_it_ended(status: int) -> str:
    how = f"was ended by signal {-status}" if status < 0 else f"exited with code {status}"
    return f"the mold {how}"


def nursery_for(
    engine: _engine.Engine,
    program: Program,
    options: Options,
    population: Population,
    workers: dict[int, Worker],
    eventlog: EventLog,
    *,
    subreaper: bool,
    door: int,
    terminal: bool,
) -> Nursery | None:
    """None without --preload, and, which is said, where it cannot be."""
    if not options.preload:
        return None
    if terminal:
        why = "the one worker has the terminal"
    elif not can_be(program):
        why = f"{program.target.words[0]} is no program of this interpreter ({sys.executable})"
    else:
        say, auto = eventlog.line, options.door == "auto"
        asked = options.preload
        return Nursery(engine, program, asked, population, workers, say, subreaper, door, auto)
    eventlog.warn(f"preload: {why}; workers import for themselves")
    return None


@dataclass(eq=False)
class Nursery:
    """`workers`: those the cluster knows. `modules`: what a mold imports; with AUTO among them,
    also what workers of the last generation have."""

    engine: _engine.Engine
    program: Program
    modules: tuple[str, ...]
    population: Population
    workers: dict[int, Worker]
    say: Callable[[str], None]
    subreaper: bool
    door: int
    receives: bool  # in dispatch: workers have the library

    def __post_init__(self) -> None:
        self._auto = AUTO in self.modules
        self._named = [name for name in self.modules if name != AUTO]
        self._molds = Molds(FIRST, scouting=not self._named)
        self._plan = Plan([*self._named], [*self._named])
        self._spawns: dict[int, Spawn] = {}  # not born yet
        self._pids: dict[int, int] = {}
        self._unplanned: list[int] = []  # molds that wait for what an older one knows
        self._asked: set[int] = set()  # those older ones
        self._barren = 0  # molds in a row that died without a word, and bore nobody

    def expect(self, command: Spawn, now: float) -> None:
        """Its channel is there. It is born when there is a mold; until then its pid is 0."""
        self._spawns[command.worker] = command
        self._molds.wanted(command.worker, command.generation)
        self._obey(now)

    def cancels(self, command: commands.Command, now: float) -> bool:
        """Whether it is to end somebody who never was, and so is done."""
        worker: int = getattr(command, "worker", 0)
        if worker not in self._spawns or not isinstance(command, ENDINGS):
            return False
        member = self.population.members.get(worker)
        self._molds.cancelled(worker, stuck=member is not None and member.overdue)
        self._bury(worker, "the mold has not forked it", now)
        self._obey(now)
        return True

    def noticed(self, notice: commands.Notice, now: float) -> None:
        """What the population tells everybody."""
        if notice.name == "reload":
            self._molds.keep(population.generations(self.population))
        elif notice.name == "exit":
            self._molds.lost(notice.worker)
        elif notice.name == "ready" and self._molds.scouting:
            for mold in self._molds.all.values():
                if mold.scout == notice.worker and not mold.ending:
                    self._ask_notes(mold.id)
        self._obey(now)

    def shown(self) -> list[dict[str, Any]]:
        """For status: each mold, its memory (bytes), and what it leaves to the workers."""
        return [
            {
                "generation": mold.generation,
                "pid": self._pids[mold.id],
                "state": "ending" if mold.ending else "ready" if mold.is_ready else "importing",
                "rss": _resident(self._pids[mold.id]),
                "left": sorted(self._plan.blamed),
            }
            for mold in self._molds.all.values()
            if mold.id in self._pids
        ]

    @property
    def is_idle(self) -> bool:
        """Nobody waits to be born."""
        return not self._spawns

    def rests(self) -> bool:
        """Has all molds end, whose generations' next workers get new ones; whether they have."""
        for mold in self._molds.all.values():
            with contextlib.suppress(OSError):  # it has just ended
                self.engine.kill(mold.id)
        return not self._molds.all

    def happened(self, kind: int, mold: int, value: int, text: bytes, now: float) -> None:
        """An event of the engine about a mold."""
        if kind == _engine.MESSAGE and mold in self._molds.all:
            with contextlib.suppress(ValueError):  # a module's own words
                self._hear(mold, json_of(text), now)
        elif kind == _engine.EXIT:
            self._died(mold, how_it_ended(value))
            self._molds.ended(mold, how_it_ended(value))
            self._pids.pop(mold, None)
            self._heard_from(mold)
        elif kind == _engine.GONE:
            self.engine.release(mold)
        self._obey(now)

    def _died(self, mold: int, how: str) -> None:
        """What was nobody's wish keeps nobody from being started: without `auto` they were."""
        one = self._molds.all[mold]
        self._barren += not one.ending and not self._molds.scouting
        if self._auto and self._barren == BARREN_MOST:
            self._auto, self._plan = False, Plan([*self._named], [*self._named])
            what = "what nobody has named" if self._named else "all"
            self.say(f"preload: the mold {how}, {BARREN_MOST} times: {what} is left to the workers")

    def _hear(self, mold: int, said: Any, now: float) -> None:
        if not isinstance(said, dict) or said.get("cmd") != COMMAND:
            return
        if "failed" in said:
            self._molds.failed(mold, str(said["failed"]))
        elif "notes" in said:
            if self._auto:
                self._plan.steps = merged(self._plan.steps, said["notes"])
            if self._molds.scouting:
                self._molds.scouted()
            self._heard_from(mold)
        elif "ready" in said:
            self._learn(Plan(**said["ready"]))
            self._molds.ready(mold)
        elif said.get("born") in self._spawns:
            self._adopt(said["born"], said["pid"], now)
        elif said.get("unborn") in self._spawns:
            self._molds.unborn(said["unborn"], str(said["why"]))

    def _learn(self, done: Plan) -> None:
        """What holds for the next generation's mold, too."""
        for name in done.blamed.keys() - self._plan.blamed.keys():
            self.say(
                f"preload: {name} {' and '.join(done.blamed[name])} at import: left to the workers"
            )
        if not self._molds.scouting:
            self._plan = replace(done, rounds=0)

    def _adopt(self, worker: int, pid: int, now: float) -> None:
        try:
            self.engine.adopt(worker, pid)
        except OSError as error:
            self._molds.unborn(worker, error.strerror or str(error))
            return
        self._molds.born(worker)
        self._barren = 0
        del self._spawns[worker]
        self.workers[worker].pid = pid

    # ---- plans ----------------------------------------------------------------------

    def _ask_notes(self, mold: int) -> None:
        if mold not in self._asked and self.engine.send(mold, b"notes"):
            self._asked.add(mold)

    def _plan_for(self, mold: int) -> None:
        """What its forerunners' workers have imported since, it imports."""
        if self._auto and not self._molds.scouting:
            for other in self._molds.all.values():
                if other.is_ready and not other.ending and other.id != mold:
                    self._ask_notes(other.id)
        self._unplanned.append(mold)
        self._send_plans()

    def _heard_from(self, mold: int) -> None:
        self._asked.discard(mold)
        self._send_plans()

    def _send_plans(self) -> None:
        if not self._asked:
            for mold in self._unplanned:
                self.engine.send(mold, self._plan.text())
            self._unplanned.clear()

    # ---- carrying out ----------------------------------------------------------------

    def _obey(self, now: float) -> None:
        while commands := self._molds.take():
            for command in commands:
                self._carry_out(command, now)

    def _carry_out(self, command: Command, now: float) -> None:
        if isinstance(command, Make):
            self._make(command)
        elif isinstance(command, Ask):
            self._ask(command)
        elif isinstance(command, End):
            self.engine.kill(command.mold)
        elif isinstance(command, Fail) and command.worker in self._spawns:
            self._bury(command.worker, command.why, now)

    def _make(self, command: Make) -> None:
        engine, program = self.engine, self.program
        environ = {**mold_environ(program), "RECLUSTER_GENERATION": str(command.generation)}
        how = f"-{program.how}" + "o" * self.subreaper
        try:
            run = run_of(program, environ)
            if run is None:
                raise OSError(ENOEXEC, f"{program.target.words[0]} is none of this interpreter's")
            channel = engine.new_worker(command.mold, 0, 0, 0, command.generation)
            if self.receives and engine.balance_how():
                environ[preloaded.SHIM] = _engine.SHIM_RECEIVES
            wants = preloaded.SHIM in environ or engine.ring_address(command.mold)
            if wants or self.door == _engine.PRELOAD:
                preloaded.add_library(environ)
            words = [*run.python, RUN, str(channel), FROM_MASTER, how, run.target.kind]
            self._pids[command.mold] = engine.exec(
                command.mold,
                _engine.PRELOAD,  # which is none, without the library
                [os.fsencode(word) for word in [*words, *run.target.words, *run.args]],
                [os.fsencode(f"{name}={value}") for name, value in environ.items()],
                os.fsencode(program.cwd()),
            )
        except OSError as error:
            self._molds.ended(command.mold, error.strerror or str(error))
        else:
            self._plan_for(command.mold)

    def _ask(self, command: Ask) -> None:
        spawn = self._spawns[command.worker]
        ring, traps, shim = self.engine.ring_address(command.worker), NO_DOOR, ""
        if self.door == _engine.NOTIFY:
            traps = self.engine.traps(command.worker)
        else:
            shim = self.engine.shim_address(command.worker)
        numbers = f"{command.worker} {spawn.slot} {traps} {command.shows:d}"
        line = f"{numbers} {ring or '-'} {shim or '-'}"
        try:
            self.engine.ask(command.mold, command.worker, line.encode())
        except OSError as error:
            self._molds.unborn(command.worker, error.strerror or str(error))

    def _bury(self, worker: int, why: str, now: float) -> None:
        """Whoever waits at the gate for this worker finds the channel closed, and ends."""
        del self._spawns[worker]
        with contextlib.suppress(OSError):
            self.engine.release(worker)
        population.unborn(self.population, worker, why, now)
        self.workers.pop(worker, None)
