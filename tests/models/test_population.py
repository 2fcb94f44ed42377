"""The population against a world that does anything: the promises as invariants.

The machine plays the processes and the kernel: workers come up, listen, fail,
hang and die in any order while somebody reloads, scales and shuts down. Every
command is carried out at once, as `cluster` does.
"""

import hypothesis.strategies as st
import pytest
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
        # Its lane: the party's, or its own. That of a dead one it may adopt.
        self.lane = f"party {spawn.party}" if spawn.party else spawn.worker
        self.listening = set()
        self.deaf = False  # nobody takes from its lanes


class World(RuleBasedStateMachine):
    @initialize(
        workers=st.integers(1, 4),
        ready_when=st.sampled_from(["listening", "started", "ready"]),
        timeout=st.sampled_from([0.0, 5.0, 100.0]),
        give_up=st.sampled_from([0, 3]),
        more=st.sampled_from(
            [{}, {}, {"bake": 2.0}, {"surge": 1}, {"surge": 2}, {"shutdown_delay": 3.0},
             {"boots": 1}, {"boots": 1, "surge": 3},
             {"max_draining": 1}, {"drain_quiet": "timeout"}, {"hang_timeout": 2.0},
             {"hang_timeout": 1.0, "bake": 3.0}, {"hold": 2.0}, {"hold": None}]
        ),
        balance=st.sampled_from(["reuseport", "shared", "weighted"]),
    )  # fmt: skip
    def begin(self, workers, ready_when, timeout, give_up, more, balance):
        balance = "reuseport" if "surge" in more else balance
        given = {
            "workers": workers, "ready_when": ready_when, "timeout": timeout, "give_up": give_up,
            "ready_timeout": 20.0, "balance": balance, **more,
        }  # fmt: skip
        self.people = p.Population(Options.make(given, {}), lambda: 0.5)
        self.now = 0.0
        self.processes = {}
        self.queues = {}  # by lane
        self.told = {}
        self.canaries = set()
        self.live = frozenset()
        self.held = set()
        self.lost_since = {}
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
                assert command.heir_of in self.processes, "only a queue is a reason to spawn now"
            if self.refuse_spawns:
                self.refuse_spawns -= 1
                self.refused.add(command.worker)
                self.people.spawn_failed(command.worker, "out of processes", self.now)
                return
            self.processes[command.worker] = Process(command)
            self.queues.setdefault(self.processes[command.worker].lane, 0)
        elif isinstance(command, c.Live):
            self.cut_over(command.workers)
            self.weigh(command)
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
        elif isinstance(command, c.Hold):
            assert (command.address in self.held) != command.on, "said twice"
            (self.held.add if command.on else self.held.discard)(command.address)
        elif isinstance(command, c.Release):
            process = self.processes[command.worker]
            # At the very end, strays of a dead worker are not waited for.
            stray = self.people.closing and not process.alive
            assert process.gone or stray, "its lanes are still polled"
            assert not process.released
            process.released = True
            if not self.holders(process.lane):
                knew = self.told.get(command.worker) or self.people.killing
                assert not self.queues[process.lane] or knew, "a queue that nobody knew of"
                self.queues[process.lane] = 0
        elif isinstance(command, c.Notice):
            self.heard(command)
        elif isinstance(command, c.Ended):
            assert self.code is None
            self.code = command.code

    def holders(self, lane):
        return [k for k, x in self.processes.items() if x.lane == lane and not x.released]

    def queued(self, key):
        """As csrc/sharing.c counts."""
        process = self.processes[key]
        others = [k for k in self.holders(process.lane) if k != key]
        alive = [k for k in others if self.processes[k].alive]
        if process.alive:
            return 0 if any(k in self.live for k in alive) else self.queues[process.lane]
        return 0 if alive or min([key, *others]) != key else self.queues[process.lane]

    def facts(self, key):
        process = self.processes[key]
        self.told[key] = self.queued(key)
        return Facts(
            queued=self.told[key],
            half_open=process.half_open,
            connections=process.connections,
            owing=process.owing,
            quiet=self.now - process.moved_at,
            catches_stop=process.catches,
            stranded=self.queues[key] if process.deaf and process.alive else 0,
        )

    def cut_over(self, workers):
        reload = self.people.reloading
        for key in workers - self.refused:
            process = self.processes[key]
            assert not process.released
            if reload:  # promise 3: nothing of a batch that is not complete
                slot = self.people.slots[process.spawn.slot]
                incoming = slot.incoming.id if slot.incoming else None
                assert slot.index not in reload.batch or incoming != key
        self.live = workers

    def weigh(self, command):
        """The canary's weights make its part, and those of others the rest."""
        assert command.weights.keys() <= command.workers
        people, parts, slots = self.people, {True: 0, False: 0}, set()
        probation = people.baking.generation if people.baking and people.baking.canary else None
        for key in command.workers & self.processes.keys():
            spawn = self.processes[key].spawn
            if self.processes[key].alive:
                parts[spawn.generation == probation] += command.weights.get(key, 1)
                slots.add(spawn.slot)
            if probation is None:
                assert command.weights.get(key, 1) == people.weights.get(spawn.slot, 1)
        if probation and all(parts.values()):
            assert abs(parts[True] / sum(parts.values()) - people.baking.canary) < 1e-9

    def heard(self, notice):
        if notice.name == "exit":
            self.processes[notice.worker].exits += 1
        if notice.name == "canary":
            self.canaries.add(notice.details["number"])
        if notice.name == "reload":
            self.reloads.append(notice.details)
            if notice.details["ok"] and notice.details["number"] in self.canaries:
                alive = [k for k in self.live if self.processes[k].alive]
                generations = {self.processes[k].spawn.generation for k in alive}
                assert generations <= {notice.details["generation"]}
                return
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
        self.begins_to_listen(self.some(data, self.alive()), address)

    def begins_to_listen(self, key, address):
        heir_of = self.processes[key].spawn.heir_of
        while heir_of in self.processes:  # it adopts the queue of the dead and deaf before it
            lane = self.processes[heir_of].lane
            shared = isinstance(lane, str)
            dead = not any(self.processes[k].alive for k in self.holders(lane))
            if shared and dead and not self.processes[key].spawn.party:
                self.processes[key].lane = lane
            elif not shared and (not self.processes[heir_of].alive or self.processes[heir_of].deaf):
                self.queues[key] += self.queues[lane]
                self.queues[lane] = 0
            heir_of = self.processes[heir_of].spawn.heir_of
        self.processes[key].deaf = False
        self.processes[key].listening.add(address)
        self.people.listening(key, address, self.now)
        self.obey()

    @precondition(lambda self: any(self.processes[key].listening for key in self.alive()))
    @rule(data=st.data(), partly=st.booleans())
    def gives_up(self, data, partly):
        """It closes a listener, or shuts it down, and lives on."""
        key = self.some(data, [key for key in self.alive() if self.processes[key].listening])
        process, member = self.processes[key], self.people.members[key]
        slot = self.people.slots[member.slot]
        was_serving = slot.serving is member
        address = self.some(data, process.listening)
        if not partly:
            process.listening.discard(address)
            process.deaf = not process.listening
        self.people.deaf(key, address, partly, self.now)
        self.obey()
        if was_serving and not slot.incoming:  # it stays until it has a successor
            assert slot.serving is member

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
        self.queues[self.processes[self.some(data, self.live)].lane] += count

    @precondition(lambda self: any(not self.processes[key].deaf for key in self.alive()))
    @rule(data=st.data())
    def accepts(self, data):
        keys = [key for key in self.alive() if not self.processes[key].deaf]
        self.queues[self.processes[self.some(data, keys)].lane] = 0

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

    @rule(part=st.sampled_from([0.01, 0.1, 0.5]))
    def reload_by_canary(self, part):
        if not self.people.options.surge:
            self.people.reload(self.now, part)
            self.obey()

    @rule()
    def promote(self):
        probation = self.people.baking
        why = self.people.promote(self.now)
        assert (why is None) == (probation is not None)
        assert not self.people.baking
        self.obey()

    @rule()
    def rollback(self):
        under_way = self.people.reloading or self.people.baking
        why = self.people.rollback(self.now)
        assert (why is None) == (under_way is not None)
        self.obey()

    @rule(slot=st.integers(0, 4), weight=st.sampled_from([0, 1, 3]))
    def weigh_a_slot(self, slot, weight):
        if self.people.options.balance != "weighted":
            return
        before = dict(self.people.weights)
        why = self.people.weigh({slot: float(weight)})
        if why:
            assert self.people.weights == before
        self.obey()

    @rule(count=st.integers(1, 5))
    def scale(self, count):
        refusing = self.refuse_spawns and self.people.options.balance == "shared"
        why = self.people.scale(count, self.now)
        self.obey()
        if refusing:
            return  # it needs a reload, which has failed
        slots = [slot for slot in self.people.slots.values() if slot.wanted]
        if not self.people.closing and not why:
            assert sum(not slot.surplus for slot in slots) == count
            assert not any(slot.surplus for slot in slots) or self.people.reloading

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
                canary = self.people.baking.canary is not None
                assert slot.previous.state in (
                    (State.SERVING, State.ABORTED) if canary else (State.READY,)
                )
                assert (slot.previous.id in self.live) == canary
            if slot.surplus:
                assert self.people.reloading and not slot.incoming
            assert all(member.state in ENDED for member in slot.chain)
            if slot.wanted and not slot.serving and not self.closing:
                coming = slot.incoming or slot.spawn_at is not None or self.people.reloading
                assert coming, "a slot that nobody will ever fill"

    @invariant()
    def who_leaves_has_a_successor_on_its_way(self):
        if not hasattr(self, "people") or self.people.closing or self.people.reloading:
            return
        for slot in self.people.slots.values():
            if slot.serving and (slot.serving.leaving or slot.serving.closed):
                assert slot.incoming or slot.spawn_at is not None

    @invariant()
    def what_nobody_serves_is_held_in_time(self):
        """Failure mode 37; and nothing else ever is."""
        if not hasattr(self, "people") or self.people.closing:
            return
        served, lost = set(), set()
        for slot in self.people.slots.values():
            if slot.serving:
                served |= self.processes[slot.serving.id].listening
                lost |= slot.serving.closed
            for member in slot.chain:
                if member.id in self.processes:
                    lost |= self.processes[member.id].listening | member.closed
        hold = self.people.options.hold
        assert self.held <= lost - served
        assert not self.held or hold
        for address in ADDRESSES:
            if address not in lost - served:
                self.lost_since.pop(address, None)
                continue
            since = self.lost_since.setdefault(address, self.now)
            if hold and self.now > since + hold:
                assert address in self.held

    @invariant()
    def live_is_serving_or_waits_for_an_heir(self):
        if not hasattr(self, "people"):
            return
        for key in self.live:
            member = self.people.members[key]
            slot = self.people.slots[member.slot]
            assert member in (slot.serving, slot.incoming, slot.previous, *slot.chain)
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
        for lane, queued in self.queues.items():
            if queued:
                known = (key in self.people.members for key in self.holders(lane))
                assert any(known), "nobody remembers this queue"

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
                assert not slot.serving or not self.processes[slot.serving.id].deaf
            assert self.people.reloading is None
            assert self.people.closing or not (self.held or self.people._deserted)
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
                process.connections = process.owing = process.half_open = 0
                starts = self.people.members[key].state in (State.STARTING, State.READY)
                if process.deaf and not starts:
                    continue  # it never listens again
                self.people.takes(key, self.now)
                self.people.online(key, self.now)
                for address in ADDRESSES:
                    self.begins_to_listen(key, address)
                self.people.said_ready(key, self.now)
                self.queues[process.lane] = 0
                process.connections = process.owing = process.half_open = 0
            elif process.alive:
                process.alive = False
                self.people.exited(key, 0, self.now)
            elif not process.gone:
                self.goes(key)
            self.obey()
        for process in self.processes.values():
            if not process.alive:
                self.queues[process.lane] = 0


World.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
TestPopulation = World.TestCase
TestPopulation.pytestmark = [pytest.mark.timeout(600)]  # much to try, beside other work


def test_a_reload_that_fails_changes_nothing():
    people = p.Population(Options.make({"workers": 2, "boots": 2}, {}), lambda: 0.5)
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


def served(**given):
    """Two addresses, one worker each slot, all serving since 0.1."""
    people = p.Population(Options.make({"workers": 1, "hold": 5, **given}, {}), lambda: 0.5)
    people.start(0.0)
    for key in list(people.members):
        for address in ADDRESSES:
            people.listening(key, address, 0.1)
    people.take()
    return people


def did(people, kind):
    return [one for one in people.take() if isinstance(one, kind)]


def test_a_worker_that_stops_listening_is_replaced_first():
    people = served()
    people.deaf(1, "a:1", False, 3.0)
    assert people.deadline() == 3.0
    people.tick(3.0)
    commands = people.take()
    (spawn,) = (one for one in commands if isinstance(one, c.Spawn))
    assert (spawn.slot, spawn.heir_of) == (0, 1)
    assert [one.name for one in commands if isinstance(one, c.Notice)] == ["deaf"]
    assert people.slots[0].serving.id == 1
    people.listening(2, "b:2", 3.1)
    assert people.slots[0].serving.id == 1  # the successor has to listen where it did
    people.listening(2, "a:1", 3.2)
    assert people.slots[0].serving.id == 2
    assert people.members[1].state is State.SETTLING


def test_respawn_is_the_least_time_for_that_too():
    people = served(respawn=4)
    people.deaf(1, "a:1", False, 2.0)
    assert people.deadline() == 4.0


def test_one_process_of_several_gets_a_grace_and_listens_again():
    people = served()
    people.deaf(1, "a:1", True, 3.0)
    assert people.deadline() == 4.0
    people.listening(1, "a:1", 3.5)
    people.tick(4.0)
    assert not did(people, c.Spawn) and people.deadline() is None
    people.deaf(1, "a:1", True, 5.0)
    people.tick(6.0)
    assert did(people, c.Spawn)


def test_what_is_closed_while_it_starts_is_no_loss():
    """A port that a program opens to see whether it is free."""
    people = served(respawn=0)
    people.deaf(1, "a:1", False, 0.5)  # it still has b:2
    assert people.deadline() is None
    people = p.Population(Options.make({"workers": 1, "respawn": 1}, {}), lambda: 0.5)
    people.start(0.0)
    people.listening(1, "probe:1", 0.1)  # that makes it ready
    people.deaf(1, "probe:1", False, 0.2)
    people.listening(1, "a:1", 0.3)
    people.tick(2.0)
    assert len(people.members) == 1 and people.deadline() is None


def test_who_served_its_quota_and_ended_well_has_not_failed():
    """No growing pauses for a server that ends every few seconds."""
    people, now, key = served(), 0.1, 1
    for _ in range(10):
        now += 2.0
        people.exited(key, 0, now)
        assert people.deadline() == now
        people.tick(now)
        (spawn,) = did(people, c.Spawn)
        key = spawn.worker
        for address in ADDRESSES:
            people.listening(key, address, now)


def test_what_waits_in_the_lane_of_a_retired_deaf_worker_gets_a_relief():
    people = served()
    people.reload(1.0)
    for address in ADDRESSES:
        people.listening(2, address, 2.0)
    assert people.members[1].state is State.SETTLING
    people.take()
    people.inspected(1, Facts(queued=3, stranded=3), 2.1)
    (spawn,) = did(people, c.Spawn)
    assert spawn.heir_of == 1
    people.inspected(1, Facts(queued=3, stranded=3), 2.2)  # one is on its way
    assert not did(people, c.Spawn)
    people.exited(spawn.worker, 1, 2.3)
    people.gone(spawn.worker, 2.3)
    people.inspected(1, Facts(queued=3, stranded=3), 2.4)
    assert did(people, c.Spawn)
    people.exited(1, 0, 2.5)
    people.gone(1, 2.5)
    people.inspected(1, Facts(queued=3), 2.5)  # it is still on its way
    assert not did(people, c.Spawn)
    people.exited(4, 1, 2.6)
    people.gone(4, 2.6)
    people.inspected(4, Facts(), 2.6)
    assert c.Inspect(1) in people.take()
    people.inspected(1, Facts(queued=3), 2.6)
    assert did(people, c.Spawn)


def test_an_old_worker_kept_by_bake_that_gives_up_is_no_way_back():
    people = served(bake=60)
    people.reload(1.0)
    for address in ADDRESSES:
        people.listening(2, address, 2.0)
    people.deaf(1, "a:1", False, 3.0)
    assert people.members[1].state is State.SETTLING
    people.exited(2, 1, 4.0)
    assert people.slots[0].serving is None and people.slots[0].spawn_at is not None


# ---- hold --------------------------------------------------------------------------------


def holds(people):
    return [(one.address, one.on) for one in did(people, c.Hold)]


def test_37_an_address_without_any_worker_is_held_after_a_while():
    people = served(respawn=100)
    people.exited(1, -9, 10.0)
    people.tick(14.9)
    assert not holds(people)
    assert people.deadline() == 15.0
    people.tick(15.0)
    assert holds(people) == [("a:1", True), ("b:2", True)]
    people.tick(101.0)
    people.listening(2, "a:1", 102.0)
    commands = people.take()
    assert [one for one in commands if isinstance(one, c.Hold)] == [
        c.Hold("a:1", False), c.Hold("b:2", False)
    ]  # fmt: skip
    told = [one.details for one in commands if isinstance(one, c.Notice) and one.name == "hold"]
    assert told == [{"address": "a:1", "held": False, "seconds": 92.0}]  # nobody serves b:2
    people.listening(2, "b:2", 103.0)
    assert not holds(people) and people.deadline() is None


def test_37_nor_is_one_whose_only_worker_is_deaf_taken_for_alive():
    people = served(respawn=100)
    people.deaf(1, "a:1", False, 10.0)
    people.tick(15.0)
    assert holds(people) == [("a:1", True)]


def test_37_while_one_slot_serves_nothing_is_held():
    people = served(workers=2, respawn=100)
    people.exited(1, -9, 10.0)
    people.deaf(2, "a:1", True, 10.0)  # it has another lane there
    assert people.deadline() > 15.0
    people.tick(50.0)
    assert not holds(people)


def test_37_an_address_that_only_a_draining_generation_has_is_not_held():
    people = served()
    people.reload(1.0)
    people.listening(2, "b:2", 1.1)
    people.tick(people.deadline())
    assert people.slots[0].serving.id == 2
    people.exited(1, 0, 3.0)
    people.tick(60.0)
    assert not holds(people)


def test_37_a_boot_that_takes_long_is_not_held():
    people = p.Population(Options.make({"workers": 1, "hold": 5}, {}), lambda: 0.5)
    people.start(0.0)
    people.online(1, 0.1)
    people.tick(30.0)
    assert not holds(people)


@pytest.mark.parametrize("hold", [0, None])
def test_37_hold_can_be_switched_off(hold):
    people = served(respawn=100, hold=hold)
    people.exited(1, -9, 10.0)
    people.tick(60.0)
    assert not holds(people)


def test_37_a_shutdown_ends_it():
    people = served(respawn=100)
    people.exited(1, -9, 10.0)
    people.shutdown(11.0)
    people.take()
    people.tick(60.0)
    assert not holds(people)


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


def test_so_many_boot_at_a_time():
    """And when the last is ready all take over in one step."""
    people = p.Population(Options.make({"workers": 3, "boots": 1}, {}), lambda: 0.5)
    people.start(0.0)
    for key in (1, 2, 3):
        people.listening(key, "a:1", 0.1)
    people.take()
    people.reload(1.0)
    for key, more in ((4, {5}), (5, {6}), (6, set())):
        people.take()
        people.listening(key, "a:1", 1.1)
        found = people.take()
        assert {one.worker for one in found if isinstance(one, c.Spawn)} == more
        live = [one.workers for one in found if isinstance(one, c.Live)]
        assert live == ([] if more else [frozenset({4, 5, 6})])
