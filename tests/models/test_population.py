"""The population against a world that does anything: the promises as invariants.

The machine plays the processes and the kernel: workers come up, listen, fail,
hang and die in any order while somebody reloads, scales and shuts down. Every
command is carried out at once, as `cluster` does.
"""

import dataclasses
import os

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

from recluster.base.states import State
from recluster.options import Options
from recluster.population import commands as c
from recluster.population import population as p
from recluster.population.draining import Facts
from recluster.population.lifecycle import ENDED

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
        self.deaf = False  # nobody takes from its lanes
        self.proving = self.promoted = False


class World(RuleBasedStateMachine):
    @initialize(
        workers=st.integers(1, 4),
        ready_when=st.sampled_from(["accepting", "listening", "started", "ready"]),
        timeout=st.sampled_from([0.0, 5.0, 100.0]),
        give_up=st.sampled_from([0, 3]),
        more=st.sampled_from(
            [{}, {}, {"bake": 2.0}, {"surge": 1}, {"surge": 2}, {"shutdown_delay": 3.0},
             {"boots": 1}, {"boots": 1, "surge": 3},
             {"max_draining": 1}, {"drain_quiet": "timeout"}, {"hang_timeout": 2.0},
             {"hang_timeout": 1.0, "bake": 3.0}, {"hold": 2.0}, {"hold": None},
             {"shutdown_timeout": 0.0}, {"shutdown_timeout": 8.0}, *RECYCLING]
        ),
        balance=st.sampled_from(["reuseport", "shared", "weighted"]),
    )  # fmt: skip
    def begin(self, workers, ready_when, timeout, give_up, more, balance):
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
        self.people.start(self.now)
        self.obey()

    # ---- carrying out commands ----------------------------------------------

    def obey(self):
        while commands := self.people.take():
            lives = [command for command in commands if isinstance(command, c.Live)]
            self.last_live = lives[-1] if lives else None  # what people think of now
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
            self.processes[command.worker].killed = True
        elif isinstance(command, c.Inspect):
            self.people.inspected(command.worker, self.facts(command.worker), self.now)
        elif isinstance(command, c.Measure):
            process = self.processes[command.worker]
            assert process.alive and command.worker in self.live, "nobody wants to know"
            self.people.measured(command.worker, process.memory, process.accepted, self.now)
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

    def owes_nothing(self, process, member):
        """Or it has had the time that it may have for that."""
        if process.owing and process.connections is not None:
            assert process.catches, "it dies of the signal"
            assert self.now >= member.draining_since + self.people.options.drain_owes

    def fitted(self, member):
        """It was ready, and listened where the one that serves does."""
        serving = self.people.slots[member.slot].serving
        wanted = serving.addresses | (serving.closed - member.closed) if serving else set()
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

    # ---- what happens in the world ---------------------------------------------

    def alive(self):
        found = [key for key, process in self.processes.items() if process.alive]
        return [key for key in found if key not in self.unborn]

    def is_never_born(self, key):
        self.unborn.remove(key)
        del self.processes[key]
        self.refused.add(key)
        self.people.unborn(key, "the mold failed", self.now)

    @rule()
    def mold_begins(self):
        self.mold_imports = True

    @precondition(lambda self: self.mold_imports)
    @rule(well=st.booleans())
    def mold_ends(self, well):
        self.mold_imports = False
        if well:
            self.unborn.clear()
        for key in list(self.unborn):
            self.is_never_born(key)
        self.obey()

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
        proves = self.people.options.ready_when == "accepting" and key not in self.live
        self.processes[key].proving |= proves
        self.people.listening(key, address, self.now, proves)
        self.obey()

    @precondition(lambda self: any(self.processes[key].proving for key in self.alive()))
    @rule(data=st.data())
    def takes_our_connection(self, data):
        self.takes_ours(
            self.some(data, [key for key in self.alive() if self.processes[key].proving])
        )

    def takes_ours(self, key):
        self.processes[key].proving = False
        self.people.accepting(key, self.now)
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

    @precondition(lambda self: self.live - self.unborn and not self.closing)
    @rule(data=st.data(), count=st.integers(1, 5))
    def clients_queue(self, data, count):
        self.queues[self.processes[self.some(data, self.live - self.unborn)].lane] += count

    @precondition(lambda self: any(not self.processes[key].deaf for key in self.alive()))
    @rule(data=st.data())
    def accepts_one(self, data):
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

    @precondition(lambda self: self.people.options.max_rss and self.alive())
    @rule(data=st.data(), memory=st.sampled_from([None, 10, 70, 1000]), accepted=st.integers(0, 20))
    def grows(self, data, memory, accepted):
        process = self.processes[self.some(data, self.alive())]
        process.memory, process.accepted = memory, accepted

    @rule(count=st.integers(1, 3))
    def kernel_refuses(self, count):
        self.refuse_spawns = count

    # ---- what somebody asks for ----------------------------------------------------

    @rule()
    def reload(self):
        """Nothing changes for clients yet; but a canary that nobody has said to be good goes."""
        probation = self.people.baking
        canary = probation is not None and probation.canary and not self.people.closing
        slots = self.people.slots.values()
        before = {slot.serving.id for slot in slots if slot.serving}
        if canary:
            before -= {slot.serving.id for slot in slots if slot.serving and slot.previous}
            before |= {slot.previous.id for slot in slots if slot.previous}
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
            drained = sum(slot.drained for slot in self.people.slots.values())
            assert sum(not slot.surplus for slot in slots) == count - drained
            assert not any(slot.surplus for slot in slots) or self.people.reloading

    @rule(slot=st.integers(0, 4))
    def restart_a_slot(self, slot):
        """The successor comes first."""
        before = self.people.slots[slot].serving if slot in self.people.slots else None
        why = self.people.restart(slot, self.now)
        refused = bool(self.refuse_spawns)
        self.obey()
        assert before is None or self.people.slots[slot].serving is before
        if not why and not refused:
            one = self.people.slots[slot]
            assert one.coming() or one.spawn_at is not None

    @rule(slot=st.integers(0, 4))
    def drain_a_slot(self, slot):
        why = self.people.drain(slot, self.now)
        self.obey()
        if not why:
            assert self.people.slots[slot].drained
            assert any(other.serving for other in self.people.slots.values())

    @rule(slot=st.integers(0, 4))
    def resume_a_slot(self, slot):
        why = self.people.resume(slot, self.now)
        self.obey()
        if not why:
            assert self.people.slots[slot].wanted and not self.people.slots[slot].drained

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
        serves = {State.SERVING}
        if self.people.options.hang_timeout is not None:  # one that hangs is there till it ends
            serves |= {State.ABORTED, State.KILLED}
        for slot in self.people.slots.values():
            if slot.serving:
                assert slot.serving.state in serves
                assert slot.wanted
            if slot.incoming:
                assert slot.incoming.state not in ENDED
                assert slot.wanted
            if slot.previous:
                assert self.people.baking
                canary = self.people.baking.canary is not None
                assert slot.previous.state in (serves if canary else {State.READY})
                assert (slot.previous.id in self.live) == canary
            if slot.surplus:
                assert self.people.reloading and not slot.incoming
            if slot.drained:
                assert not (slot.wanted or slot.coming() or slot.chain or slot.previous)
                assert slot.spawn_at is None
                kept = [other for other in self.people.slots.values() if other.wanted]
                assert kept or self.closing, "all are drained"
            assert all(member.state in ENDED for member in slot.chain)
            if slot.healing:
                assert slot.healing.state not in ENDED
                assert slot.wanted and self.people.reloading
            if slot.wanted and not slot.serving and not self.closing and not slot.surplus:
                ready = [one for one in slot.coming() if self.people._fits(one, self.now)]
                assert not ready, "a slot that is left dark though somebody is ready"
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
            assert member in (slot.serving, slot.previous, *slot.coming(), *slot.chain)
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
                deaf = slot.serving and self.processes[slot.serving.id].deaf
                # What was closed before it was ready, by another sign than listening, was
                # a part of its start: it may be no server at all.
                early = self.people.options.ready_when != "listening"
                assert not deaf or (early and not slot.serving.closed)
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
                self.takes_ours(key)
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


# The same examples each time, so that a change fails by what it broke. To go and find:
# RECLUSTER_EXAMPLES=5000 python -m pytest tests/models/test_population.py
EXAMPLES = int(os.environ.get("RECLUSTER_EXAMPLES", "0"))
World.TestCase.settings = settings(
    max_examples=EXAMPLES or 200,
    derandomize=not EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
TestPopulation = World.TestCase
TestPopulation.pytestmark = [pytest.mark.timeout(600)]  # much to try, beside other work
