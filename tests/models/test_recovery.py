"""An error anywhere inside a handler: the population is whole again, and goes on.

A fault strikes the n-th command that the population would give, so what it was about is
done by half. The shell around it is the real one (`Pump`, `Containment`), the engine is not.
"""

import unittest.mock

from hypothesis import given, settings
from hypothesis import strategies as st

from recluster import _engine
from recluster.base.states import State
from recluster.events.view import Worker
from recluster.master.containment import Containment
from recluster.master.pump import Pump
from recluster.options import Options
from recluster.output.eventlog import EventLog
from recluster.population import closing, commands, population, reloading
from recluster.population.draining import Facts
from recluster.population.lifecycle import ENDED
from recluster.population.state import Population

ADDRESS = "127.0.0.1:80"
OPTIONS = {
    "workers": 3, "respawn": 0.1, "backoff": 0.2, "drain_settle": 0.1, "timeout": 5,
    "drain_quiet": 0.1, "give_up": 0, "ready_when": "listening", "ready_timeout": 10, "boots": 3,
}  # fmt: skip


class Fault(Exception):
    pass


class World:
    """The engine too: what the processes are, and the events that come of it."""

    def __init__(self, **options):
        self.now, self.timer, self.events = 100.0, None, []
        self.fault_in, self.faults = None, 0
        self.processes = {}  # key -> "boots", "listens", "killed" or "dead"
        self.workers, self.log = {}, []
        self.people = Population(Options.make({**OPTIONS, **options}, {}), lambda: 0.5)
        story = EventLog(self.people.options, lambda *line: self.log.append(line), lambda: 0)
        self.containment = Containment(self, self.people, self.workers, story)
        self.pump = Pump(
            self,
            self.people,
            self.containment,
            happened=self.happened,
            carry_out=self.carry_out,
            ended=self.fail,
        )
        self._do, self.people.do = self.people.do, self.do
        self.ended = None
        self.pump.ended = self.end
        population.start(self.people, self.now)
        self.pump.work()

    def fail(self, *arguments):
        raise AssertionError(arguments)

    def end(self, code):
        self.ended = code
        self.pump.stop()

    def do(self, command):
        if self.fault_in is not None:
            self.fault_in -= 1
            if self.fault_in < 0:
                self.fault_in = None
                self.faults += 1
                raise Fault(type(command).__name__)
        self._do(command)

    # ---- what Containment and Pump ask of the engine ---------------------------------

    def wait(self, timeout):
        found, self.events = self.events, []
        return found

    def deadline(self, at):
        self.timer = at

    def kill(self, key):
        if self.processes.get(key) in ("boots", "listens"):
            self.processes[key] = "killed"

    def server(self, key):
        return key if self.processes.get(key) not in (None, "dead") else 0

    def release(self, key):
        assert self.processes.get(key) in (None, "dead", "gone")

    def close_lanes(self):
        pass

    # ---- the shell -------------------------------------------------------------------

    def happened(self, kind, key, value, text, now):
        people = self.people
        if key not in self.workers or key not in people.members:
            return
        if kind == _engine.LISTENING:
            population.listening(people, key, ADDRESS, self.now)
        elif kind == _engine.EXIT:
            population.exited(people, key, value, self.now)
        elif kind == _engine.GONE:
            population.gone(people, key, self.now)

    def carry_out(self, command, now):
        key = getattr(command, "worker", 0)
        if isinstance(command, commands.Spawn):
            if not population.cancelled(self.people, key):
                self.workers[key] = Worker(key, command.slot, command.generation, 100 + key)
                self.processes[key] = "boots"
        elif isinstance(command, commands.Leave | commands.Abort | commands.Kill):
            self.kill(key)
        elif isinstance(command, commands.Inspect):
            facts = Facts(0, 0, 0, 0, float("inf"), False, False, True, 0)
            population.inspected(self.people, key, facts, self.now)
        elif isinstance(command, commands.Release):
            self.workers.pop(key, None)

    # ---- what may happen -------------------------------------------------------------

    def tell(self, kind, key, value=0):
        self.events.append((kind, key, value, None))
        self.pump.turn(0)

    def some(self, state, which):
        keys = sorted(key for key, one in self.processes.items() if one == state)
        return keys[which % len(keys)] if keys else None

    def listens(self, which):
        if key := self.some("boots", which):
            self.processes[key] = "listens"
            self.tell(_engine.LISTENING, key)

    def ends(self, state, which, status):
        if key := self.some(state, which):
            self.processes[key] = "dead"
            self.tell(_engine.EXIT, key, status)

    def goes(self, which):
        if key := self.some("dead", which):
            self.processes[key] = "gone"
            self.tell(_engine.GONE, key)

    def time_passes(self, seconds):
        self.now += seconds
        if self.timer is not None and self.timer <= self.now:
            self.tell(_engine.DEADLINE, 0)

    def reload(self, which):
        fault, self.fault_in = self.fault_in, None  # its caller would be told
        reloading.reload(self.people, self.now, None)
        self.fault_in = fault
        self.pump.work()

    def acts(self, what, which):
        if what == 0:
            self.listens(which)
        elif what == 1:
            self.ends("listens", which, -11)
        elif what == 2:
            self.ends("boots", which, 1)
        elif what == 3:
            self.ends("killed", which, -9)
        elif what == 4:
            self.goes(which)
        elif what == 5:
            self.time_passes([0.01, 0.2, 2.0, 30.0][which])
        elif what == 6:
            self.reload(which)

    def calms_down(self, done):
        """All that is under way comes about."""
        for _ in range(400):
            if self.ended is not None or done():
                return
            for what in (0, 3, 4, 5):
                self.acts(what, 1)
        raise AssertionError(self.state())

    def state(self):
        members = [(one.id, one.slot, one.state) for one in self.people.members.values()]
        return members, self.people.slots, self.people.reloading, self.processes, self.log[-20:]

    def rests(self):
        """Each slot has one that serves and lives, and there is nobody else."""
        slots = self.people.slots.values()
        serving = [slot.serving for slot in slots]
        return (
            all(serving)
            and self.people.reloading is self.people.baking is None
            and len(self.people.members) == len(serving)
            and all(one.state is State.SERVING for one in serving)
            and all(self.processes[one.id] == "listens" for one in serving)
        )


@settings(deadline=None, max_examples=300)
@given(
    before=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=30),
    faults=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    after=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=30),
    more=st.sampled_from([{}, {"surge": 1}, {"surge": 2}, {"bake": 3}, {"max_draining": 1}]),
    at_end=st.integers(0, 20),
)
def test_half_done_is_made_whole(before, faults, after, more, at_end):
    world = World(**more)
    with unittest.mock.patch("recluster.master.pump.time.monotonic", lambda: world.now):
        lives_through(world, before, faults, after, at_end)


def lives_through(world, before, faults, after, at_end):
    for act in before:
        world.acts(*act)
    for fault in faults:
        world.fault_in = fault
        for act in after:
            world.acts(*act)
    world.fault_in = None
    world.calms_down(world.rests)
    live = {slot.serving.id for slot in world.people.slots.values()}
    assert world.people.live == live
    assert not any("in its repair" in line for line in world.log)
    world.fault_in = at_end
    try:
        closing.shutdown(world.people, world.now)
    except Fault as error:
        world.containment.signal("SIGTERM", error, world.now)
    world.pump.work()
    world.calms_down(lambda: False)
    assert world.ended == 0
    assert all(member.state in ENDED for member in world.people.members.values())
