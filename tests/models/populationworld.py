"""The world of test_population.py: its processes, and how commands of the population are carried
out in it at once, as `cluster` does; what a command must never be is asserted here.
"""

import dataclasses

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from recluster.base.states import State
from recluster.options import Options
from recluster.population import commands as c
from recluster.population import population, recycling, slots
from recluster.population import state as p
from recluster.population.draining import Facts

ADDRESSES = ("a:1", "b:2")
RECYCLING = [
    {"max_lifetime": 3.0}, {"max_rss": 100, "surge": 1}, {"max_connections": 9, "bake": 2.0},
    {"max_lifetime": 30.0, "max_rss": 100, "max_connections": 9, "jitter": 0.5},
]  # fmt: skip


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
        self.memory = self.accepted = None
        self.gave_up = False  # one of its listeners
        self.deaf = False  # nobody takes from its lanes
        self.proving = self.promoted = False
        self.took = False  # it has listened to a queue that others were steered to


class Commanded(RuleBasedStateMachine):
    BALANCES = ("reuseport", "shared", "weighted")
    MORE = (
        {}, {}, {"bake": 2.0}, {"surge": 1}, {"surge": 2}, {"shutdown_delay": 3.0},
        {"boots": 1}, {"boots": 1, "surge": 3},
        {"max_draining": 1}, {"drain_quiet": "timeout"}, {"hang_timeout": 2.0},
        {"hang_timeout": 1.0, "bake": 3.0}, {"hold": 2.0}, {"hold": None},
        {"shutdown_timeout": 0.0}, {"shutdown_timeout": 8.0}, *RECYCLING,
    )  # fmt: skip

    @initialize(
        workers=st.integers(1, 4),
        ready_when=st.sampled_from(["accepting", "listening", "started", "ready"]),
        timeout=st.sampled_from([0.0, 5.0, 100.0]),
        give_up=st.sampled_from([0, 3]),
        data=st.data(),
    )
    def begin(self, workers, ready_when, timeout, give_up, data):
        balance = data.draw(st.sampled_from(self.BALANCES))
        more = data.draw(st.sampled_from(self.MORE))
        balance = "reuseport" if "surge" in more else balance
        balance = "auto" if more in RECYCLING else balance
        given = {
            "workers": workers, "ready_when": ready_when, "timeout": timeout, "give_up": give_up,
            "ready_timeout": 20.0, "balance": balance, **more,
        }  # fmt: skip
        self.people = p.Population(Options.make(given, {}), lambda: 0.5)
        self.now = 0.0
        self.processes = {}
        self.queues = {}  # by lane
        self.told = {}
        self.canaries, self.hurried = set(), set()
        self.live = frozenset()
        self.held = set()
        self.recycled = set()
        self.lost_since = {}
        self.code = None
        self.reloads = []
        self.closing = self.killing = False
        self.refuse_spawns = 0
        self.refused = set()
        self.mold_imports = False
        self.unborn = set()
        population.start(self.people, self.now)
        self.obey()

    # ---- carrying out commands ----------------------------------------------

    def obey(self):
        while commands := slots.take(self.people):
            lives = [command for command in commands if isinstance(command, c.Live)]
            self.last_live = lives[-1] if lives else None  # what people think of now
            for command in commands:
                self.obey_one(command)

    def obey_one(self, command):
        if isinstance(command, c.Spawn):
            assert command.worker not in self.processes, "an id was used twice"
            if population.cancelled(self.people, command.worker):
                self.refused.add(command.worker)
                return
            if self.people.closing:
                assert command.heir_of in self.processes, "only a queue is a reason to spawn now"
            if self.refuse_spawns:
                self.refuse_spawns -= 1
                self.refused.add(command.worker)
                population.spawn_failed(self.people, command.worker, "out of processes", self.now)
                return
            self.processes[command.worker] = Process(command)
            self.queues.setdefault(self.processes[command.worker].lane, 0)
            if self.mold_imports:
                self.unborn.add(command.worker)
        elif isinstance(command, c.Leave | c.Abort | c.Kill) and command.worker in self.unborn:
            self.is_never_born(command.worker)
        elif isinstance(command, c.Inherit) and command.worker in self.refused:
            pass
        elif isinstance(command, c.Inherit):
            heir = self.processes[command.worker]
            assert not heir.listening, "it has lanes of its own"
            heir.spawn = dataclasses.replace(heir.spawn, heir_of=command.heir_of)
        elif isinstance(command, c.Live):
            for key in command.workers & self.processes.keys():
                if self.people.members[key].state is State.SERVING:
                    process = self.processes[key]
                    assert process.promoted or not process.proving, "it is not known to accept"
                    process.promoted = True
            self.cut_over(command.workers)
            self.all_of_a_party_accept()
            if command is self.last_live:
                self.weigh(command)
        elif isinstance(command, c.Leave | c.Kill | c.Inspect) and command.worker in self.refused:
            pass  # decided before it was known that there is no such process
        elif isinstance(command, c.Leave):
            assert self.processes[command.worker].alive, "a signal to the dead"
            member = self.people.members[command.worker]
            if member.overdue and not self.processes[command.worker].asked:
                assert not self.fitted(member), "ready_timeout ended a worker that was ready"
            first = not self.processes[command.worker].asked
            if first and member.draining_since and member.generation not in self.hurried:
                self.owes_nothing(self.processes[command.worker], member)
            if first and self.may_have_accepted(member):
                assert member.draining_since, "it had connections, of its like's queue"
            self.processes[command.worker].asked = True
        elif isinstance(command, c.Abort):
            assert self.processes[command.worker].alive, "a signal to the dead"
            assert self.people.options.hang_timeout, "nobody asked for that"
        elif isinstance(command, c.Kill):
            assert self.processes[command.worker].alive, "a signal to the dead"
            member = self.people.members[command.worker]
            # What waits in its lane makes it settle for longer, but not past `timeout`.
            limit = member.retired_at + max(
                self.people.options.timeout, self.people.options.drain_settle
            )
            late = self.told.get(command.worker) and self.now >= limit
            settled = self.now >= member.settle_until or late
            assert self.killing or self.people.killing or settled
            if self.may_have_accepted(member) and not self.closing:
                late = self.now >= member.retired_at + self.people.options.timeout
                assert late or member.hung_since is not None, "it had no time to drain"
            self.processes[command.worker].killed = True
        elif isinstance(command, c.Inspect):
            population.inspected(self.people, command.worker, self.facts(command.worker), self.now)
        elif isinstance(command, c.Measure):
            process = self.processes[command.worker]
            assert process.alive and command.worker in self.live, "nobody wants to know"
            memory, accepted = process.memory, process.accepted
            recycling.measured(self.people, command.worker, memory, accepted, self.now)
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

    def all_of_a_party_accept(self):
        """From the queue that they share, whoever of them it is that serves."""
        fed = {self.processes[key].spawn.party for key in self.live & self.processes.keys()}
        for process in self.processes.values():
            listens = process.alive and process.listening and not process.asked
            process.took |= bool(listens and process.spawn.party in fed - {0})

    def leaves_as_one(self, generation):
        """Or nobody leaves who has accepted, beside others who serve on."""
        slots, shares = self.people.slots.values(), self.people.options.balance == "shared"
        serves = {slot.serving.generation for slot in slots if slot.serving}
        for key in self.alive() if shares and serves - {generation} else ():
            member, listens = self.people.members[key], self.processes[key].listening
            if listens and (member.generation, member.state) == (generation, State.SETTLING):
                assert generation not in serves, "who leaves accepts from the queue of who stays"

    def may_have_accepted(self, member):
        given_up = member.generation in self.hurried | self.people.rejected
        return self.processes[member.id].took and not given_up and not self.killing

    def owes_nothing(self, process, member):
        """Or it has had the time that it may have for that."""
        if process.owing and process.connections is not None and member.listened:
            assert process.catches, "it dies of the signal"
            assert self.now >= member.draining_since + self.people.options.drain_owes

    def fitted(self, member):
        """It was ready, and listened where it had to."""
        wanted = slots.expected(self.people, member)
        return member.ready_at is not None and wanted <= member.addresses

    def holders(self, lane):
        return [k for k, x in self.processes.items() if x.lane == lane and not x.released]

    def queued(self, key):
        """As csrc/lane/sharing.c counts."""
        process = self.processes[key]
        others = [k for k in self.holders(process.lane) if k != key]
        alive = [k for k in others if self.processes[k].alive]
        if process.alive:
            return 0 if any(k in self.live for k in alive) else self.queues[process.lane]
        return 0 if alive or min([key, *others]) != key else self.queues[process.lane]

    def stranded(self, process):
        """What waits where it, alive, and all who share the lane with it have given up."""
        holders = [self.processes[key] for key in self.holders(process.lane)]
        takes = any(holder.alive and not holder.deaf for holder in holders)
        gives_up = process.alive and process.deaf and not takes
        return self.queues.get(process.lane, 0) if gives_up else 0

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
            stranded=self.stranded(process),
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
        for key in self.recycled & self.processes.keys():  # its successor serves before it goes
            slot = self.people.slots[self.processes[key].spawn.slot]
            if key in self.live - workers and self.processes[key].alive and slot.wanted:
                assert slot.serving and slot.serving.id != key and slot.serving.id in workers
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
        if notice.name == "hurried":
            self.hurried.add(notice.event.generation)
        if notice.name == "exit":
            self.processes[notice.worker].exits += 1
        if notice.name == "recycle":
            self.is_recycled(notice)
        if notice.name == "canary":
            self.canaries.add(notice.event.number)
        if notice.name == "reload":
            self.reloads.append(notice.event.details)
            if not notice.event.ok:
                self.leaves_as_one(notice.event.generation)
            if notice.event.ok and notice.event.number in self.canaries:
                alive = [k for k in self.live if self.processes[k].alive]
                generations = {self.processes[k].spawn.generation for k in alive}
                assert generations <= {notice.event.generation}
                return
            surge = self.people.options.surge
            if notice.event.ok and not self.people.options.bake and not surge:
                # promise 2: all at once
                alive = [k for k in self.live if self.processes[k].alive]
                generations = {self.processes[k].spawn.generation for k in alive}
                assert generations == {notice.event.generation}
                assert len(alive) == sum(slot.wanted for slot in self.people.slots.values())

    def is_recycled(self, notice):
        people, slots = self.people, self.people.slots
        assert not people.shutting_down and not people.reloading and not people.baking
        for key in self.recycled & self.processes.keys():
            slot = slots[self.processes[key].spawn.slot]
            held = slot.serving and slot.serving.id == key and self.processes[key].alive
            assert not held, "two at once"
        member = people.members[notice.worker]
        assert slots[member.slot].serving is member and member.leaving
        self.recycled.add(notice.worker)
        options, why, value = people.options, notice.event.why, notice.event.value
        limit = {"rss": options.max_rss, "connections": options.max_connections}.get(why)
        limit = options.max_lifetime if why == "lifetime" else limit
        assert value >= limit * (1 - options.jitter) and notice.event.limit == limit

    def alive(self):
        found = [key for key, process in self.processes.items() if process.alive]
        return [key for key in found if key not in self.unborn]

    def is_never_born(self, key):
        self.unborn.remove(key)
        del self.processes[key]
        self.refused.add(key)
        population.unborn(self.people, key, "the mold failed", self.now)
