"""The population against a world that does anything: the promises as invariants.

The machine plays the processes and the kernel: workers come up, listen, fail,
hang and die in any order while somebody reloads, scales and shuts down. Every
command is carried out at once, as `cluster` does.
"""

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from recluster import commands as c
from recluster import population as p
from recluster.draining import Facts
from recluster.lifecycle import ENDED, State
from recluster.options import Options

ADDRESSES = ("a:1", "b:2")


class Process:
    """A worker as the world knows it."""

    def __init__(self, spawn):
        self.spawn = spawn
        self.alive = True
        self.gone = False
        self.exits = 0
        self.asked = self.killed = self.released = False
        self.half_open = self.owing = self.moved_at = 0
        self.connections = 0
        self.catches = True


class World(RuleBasedStateMachine):
    @initialize(
        workers=st.integers(1, 4),
        ready_when=st.sampled_from(["listening", "started", "ready"]),
        timeout=st.sampled_from([0.0, 5.0, 100.0]),
        give_up=st.sampled_from([0, 3]),
        more=st.sampled_from(
            [{}, {}, {"bake": 2.0}, {"surge": 1}, {"surge": 2}, {"shutdown_delay": 3.0},
             {"max_draining": 1}, {"drain_quiet": "timeout"}, {"hang_timeout": 2.0},
             {"hang_timeout": 1.0, "bake": 3.0}]
        ),
    )  # fmt: skip
    def begin(self, workers, ready_when, timeout, give_up, more):
        given = {
            "workers": workers, "ready_when": ready_when, "timeout": timeout, "give_up": give_up,
            "ready_timeout": 20.0, **more,
        }  # fmt: skip
        self.people = p.Population(Options.make(given, {}), lambda: 0.5)
        self.now = 0.0
        self.processes = {}
        self.queues = {}
        self.live = frozenset()
        self.code = None
        self.reloads = []
        self.closing = self.killing = False
        self.refuse_spawns = 0
        self.refused = set()
        self.people.start(self.now)
        self.obey()

    # ---- carrying out commands ----------------------------------------------

    def obey(self):
        while commands := self.people.take():
            for command in commands:
                self.obey_one(command)

    def obey_one(self, command):
        if isinstance(command, c.Spawn):
            assert command.worker not in self.processes, "an id was used twice"
            if self.people.cancelled(command.worker):
                self.refused.add(command.worker)
                return
            if self.people.closing:
                assert command.heir_of in self.queues, "only a queue is a reason to spawn now"
            if self.refuse_spawns:
                self.refuse_spawns -= 1
                self.refused.add(command.worker)
                self.people.spawn_failed(command.worker, "out of processes", self.now)
                return
            self.processes[command.worker] = Process(command)
            self.queues[command.worker] = 0
        elif isinstance(command, c.Live):
            self.cut_over(command.workers)
        elif command in map(c.Leave, self.refused) or command in map(c.Kill, self.refused):
            pass  # decided before it was known that there is no such process
        elif isinstance(command, c.Leave):
            assert self.processes[command.worker].alive, "a signal to the dead"
            self.processes[command.worker].asked = True
        elif isinstance(command, c.Abort):
            assert self.processes[command.worker].alive, "a signal to the dead"
            assert self.people.options.hang_timeout, "nobody asked for that"
        elif isinstance(command, c.Kill):
            assert self.processes[command.worker].alive, "a signal to the dead"
            self.processes[command.worker].killed = True
        elif isinstance(command, c.Inspect):
            self.people.inspected(command.worker, self.facts(command.worker), self.now)
        elif isinstance(command, c.Release):
            process = self.processes[command.worker]
            # At the very end, strays of a dead worker are not waited for.
            stray = self.people.closing and not process.alive
            assert process.gone or stray, "its lanes are still polled"
            assert not process.released
            process.released = True
            self.queues[command.worker] = 0
        elif isinstance(command, c.Notice):
            self.heard(command)
        elif isinstance(command, c.Ended):
            assert self.code is None
            self.code = command.code

    def facts(self, key):
        process = self.processes[key]
        return Facts(
            queued=self.queues[key],
            half_open=process.half_open,
            connections=process.connections,
            owing=process.owing,
            quiet=self.now - process.moved_at,
            catches_stop=process.catches,
        )

    def cut_over(self, workers):
        reload = self.people.reloading
        for key in workers - self.refused:
            process = self.processes[key]
            assert not process.released
            if reload:  # promise 3: nothing of a batch that is not complete
                slot = self.people.slots[process.spawn.slot]
                assert slot.index not in reload.batch or slot.incoming.id != key
        self.live = workers

    def heard(self, notice):
        if notice.name == "exit":
            self.processes[notice.worker].exits += 1
        if notice.name == "reload":
            self.reloads.append(notice.details)
            surge = self.people.options.surge
            if notice.details["ok"] and not self.people.options.bake and not surge:
                # promise 2: all at once
                alive = [k for k in self.live if self.processes[k].alive]
                generations = {self.processes[k].spawn.generation for k in alive}
                assert generations == {notice.details["generation"]}
                assert len(alive) == sum(slot.wanted for slot in self.people.slots.values())

    # ---- what happens in the world ---------------------------------------------

    def alive(self):
        return [key for key, process in self.processes.items() if process.alive]

    def some(self, data, keys):
        return data.draw(st.sampled_from(sorted(keys)))

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 3.0, 20.0, 120.0]))
    def time_passes(self, seconds):
        """To the next deadline at a time, as the timer does."""
        end = self.now + seconds
        spins = 0
        while (at := self.people.deadline()) is not None and at <= end:
            spins = 0 if at > self.now else spins + 1
            assert spins < 20, "a deadline that does not pass: a busy loop"
            self.now = max(self.now, at)
            self.people.tick(self.now)
            self.obey()
        self.now = end

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def comes_up(self, data):
        self.people.online(self.some(data, self.alive()), self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), address=st.sampled_from(ADDRESSES))
    def listens(self, data, address):
        key = self.some(data, self.alive())
        heir_of = self.processes[key].spawn.heir_of
        while heir_of in self.queues:  # it adopts the queue of the dead before it
            if not self.processes[heir_of].alive:
                self.queues[key] += self.queues[heir_of]
                self.queues[heir_of] = 0
            heir_of = self.processes[heir_of].spawn.heir_of
        self.people.listening(key, address, self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def says_ready(self, data):
        self.people.said_ready(self.some(data, self.alive()), self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def says_disconnect(self, data):
        self.people.said_disconnect(self.some(data, self.alive()), self.now)
        self.obey()

    @precondition(lambda self: self.live and not self.closing)
    @rule(data=st.data(), count=st.integers(1, 5))
    def clients_queue(self, data, count):
        self.queues[self.some(data, self.live)] += count

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def accepts(self, data):
        self.queues[self.some(data, self.alive())] = 0

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), takes=st.booleans())
    def hangs_or_takes(self, data, takes):
        key = self.some(data, self.alive())
        if takes:
            self.people.takes(key, self.now)
        else:
            self.people.hung(key, 1, self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), status=st.sampled_from([0, 1, -9, -11]))
    def dies(self, data, status):
        key = self.some(data, self.alive())
        self.processes[key].alive = False
        self.people.exited(key, status, self.now)
        self.obey()

    @precondition(lambda self: any(not x.alive and not x.gone for x in self.processes.values()))
    @rule(data=st.data())
    def last_process_ends(self, data):
        self.goes(
            self.some(data, [k for k, x in self.processes.items() if not (x.alive or x.gone)])
        )

    def goes(self, key):
        self.processes[key].gone = True
        if key in self.people.members:
            self.people.gone(key, self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(
        data=st.data(),
        connections=st.sampled_from([None, -1, 0, 3]),
        owing=st.integers(0, 1),
        half_open=st.integers(0, 1),
        catches=st.booleans(),
    )
    def clients_do(self, data, connections, owing, half_open, catches):
        process = self.processes[self.some(data, self.alive())]
        process.connections, process.owing, process.half_open = connections, owing, half_open
        process.catches, process.moved_at = catches, self.now

    @rule(count=st.integers(1, 3))
    def kernel_refuses(self, count):
        self.refuse_spawns = count

    # ---- what somebody asks for ----------------------------------------------------

    @rule()
    def reload(self):
        before = {slot.serving.id for slot in self.people.slots.values() if slot.serving}
        self.people.reload(self.now)
        self.obey()
        assert before <= self.live

    @rule(count=st.integers(1, 5))
    def scale(self, count):
        self.people.scale(count, self.now)
        self.obey()
        if not self.people.closing:
            assert sum(slot.wanted for slot in self.people.slots.values()) == count

    @rule()
    def shutdown(self):
        self.people.shutdown(self.now)
        self.closing = self.people.closing
        self.obey()

    @rule()
    def terminate(self):
        self.closing = self.killing = True
        self.people.terminate(self.now)
        self.obey()
        assert all(self.processes[key].killed for key in self.alive())

    # ---- what always holds ------------------------------------------------------------

    @invariant()
    def slots_are_sound(self):
        if not hasattr(self, "people"):
            return
        self.closing = self.closing or self.people.closing  # it gave up
        for slot in self.people.slots.values():
            if slot.serving:
                assert slot.serving.state in (State.SERVING, State.ABORTED)
                assert slot.wanted
            if slot.incoming:
                assert slot.incoming.state not in ENDED
                assert slot.wanted
            if slot.previous:
                assert self.people.baking
                assert slot.previous.state is State.READY
                assert slot.previous.id not in self.live
            assert all(member.state in ENDED for member in slot.chain)
            if slot.wanted and not slot.serving and not self.closing:
                coming = slot.incoming or slot.spawn_at is not None or self.people.reloading
                assert coming, "a slot that nobody will ever fill"

    @invariant()
    def live_is_serving_or_waits_for_an_heir(self):
        if not hasattr(self, "people"):
            return
        for key in self.live:
            member = self.people.members[key]
            slot = self.people.slots[member.slot]
            assert slot.serving is member or slot.incoming is member or member in slot.chain
        serving = {slot.serving.id for slot in self.people.slots.values() if slot.serving}
        assert serving <= self.live

    @invariant()
    def one_exit_each(self):
        for process in getattr(self, "processes", {}).values():
            assert process.exits == (0 if process.alive else 1)

    @invariant()
    def nothing_queued_is_dropped(self):
        """Promise 1: who is released leaves no queue, unless everything is killed
        or no successor would take it."""
        if not hasattr(self, "people") or self.people.killing:
            return
        for key, queued in self.queues.items():
            if queued and not self.processes[key].alive:
                assert key in self.people.members, "nobody remembers this queue"

    # ---- and in the end -----------------------------------------------------------------

    def teardown(self):
        """From anywhere: with well-behaved workers every slot is served again,
        and a shutdown ends."""
        if not hasattr(self, "people"):
            return
        self.refuse_spawns = 0
        delayed = self.people._close_at is not None
        for _ in range(60):
            self.behave()
            self.time_passes(1.0)
        self.closing = self.closing or delayed
        if not self.closing:
            for slot in self.people.slots.values():
                assert slot.wanted == (slot.serving is not None)
            assert self.people.reloading is None
        self.people.shutdown(self.now)
        self.closing = True
        self.obey()
        for _ in range(60):
            self.behave()
            self.time_passes(5.0)
        assert self.code is not None
        assert all(not process.alive for process in self.processes.values()) or self.people.killing

    def behave(self):
        for key, process in list(self.processes.items()):
            if process.alive and not process.asked and not process.killed:
                self.people.takes(key, self.now)
                self.people.online(key, self.now)
                for address in ADDRESSES:
                    self.people.listening(key, address, self.now)
                self.people.said_ready(key, self.now)
                self.queues[key] = 0
                process.connections = process.owing = process.half_open = 0
            elif process.alive:
                process.alive = False
                self.people.exited(key, 0, self.now)
            elif not process.gone:
                self.goes(key)
            self.obey()
        for key, process in self.processes.items():
            if not process.alive:
                self.queues[key] = 0


World.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
TestPopulation = World.TestCase


def test_a_reload_that_fails_changes_nothing():
    people = p.Population(Options.make({"workers": 2}, {}), lambda: 0.5)
    people.start(0.0)
    for key in (1, 2):
        people.online(key, 0.1)
        people.listening(key, "a:1", 0.1)
    people.take()
    people.reload(1.0)
    assert {one.worker for one in people.take() if isinstance(one, c.Spawn)} == {3, 4}
    people.listening(3, "a:1", 1.2)
    people.failed(4, "SyntaxError: invalid syntax")
    people.exited(4, 1, 1.3)
    commands = people.take()
    assert not [one for one in commands if isinstance(one, c.Live)]
    (reload,) = (one for one in commands if isinstance(one, c.Notice) and one.name == "reload")
    assert not reload.details["ok"]
    assert "worker 1" in reload.details["why"]
    assert "SyntaxError" in reload.details["why"]
    assert {slot.serving.id for slot in people.slots.values()} == {1, 2}


def test_the_wrong_port_never_takes_over():
    people = p.Population(Options.make({"workers": 1, "ready_timeout": 9}, {}), lambda: 0.5)
    people.start(0.0)
    people.listening(1, "a:1", 0.1)
    people.reload(1.0)
    people.listening(2, "b:2", 1.1)
    people.tick(5.0)
    assert people.slots[0].serving.id == 1
    people.tick(10.1)
    (reload,) = (one for one in people.take() if isinstance(one, c.Notice) and one.name == "reload")
    assert "never listened on a:1 within 9 s" in reload.details["why"]


def test_an_address_that_went_is_told_after_a_grace():
    people = p.Population(Options.make({"workers": 1}, {}), lambda: 0.5)
    people.start(0.0)
    for address in ("a:1", "b:2"):
        people.listening(1, address, 0.1)
    people.reload(1.0)
    people.listening(2, "a:1", 1.1)
    assert people.reloading
    people.tick(people.deadline())
    (reload,) = (one for one in people.take() if isinstance(one, c.Notice) and one.name == "reload")
    assert reload.details["ok"]
    assert reload.details["went"] == ["b:2"]


def test_boots_that_fail_are_forgotten():
    """A slot whose code is broken for a night must not keep each of its tries."""
    options = Options.make({"workers": 1, "respawn": 1, "backoff": 0}, {})
    people = p.Population(options, lambda: 0.5)
    people.start(0.0)
    people.listening(1, "a:1", 0.1)
    people.exited(1, -9, 0.2)
    people.gone(1, 0.2)
    people.take()
    newest = 1
    for _ in range(50):
        people.tick(people.deadline())
        spawns = [one for one in people.take() if isinstance(one, c.Spawn)]
        if spawns:
            ((newest, heir_of),) = [(one.worker, one.heir_of) for one in spawns]
            assert heir_of == 1  # its lane waits all the time
            people.exited(newest, 1, newest + 0.5)
            people.gone(newest, newest + 0.5)
            for one in people.take():
                if isinstance(one, c.Inspect):
                    people.inspected(one.worker, Facts(), newest + 0.5)
        assert people.members.keys() <= {1, newest}
    assert newest > 20
