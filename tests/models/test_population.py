"""The population against a world that does anything: the promises as invariants.

The machine plays the processes and the kernel: workers come up, listen, fail,
hang and die in any order while somebody reloads, scales and shuts down. Every
command is carried out at once, as `cluster` does.
"""

import os

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import invariant, rule
from populationevents import Eventful
from populationworld import ADDRESSES

from recluster.base.states import State
from recluster.population import closing, population, readiness, slots
from recluster.population.lifecycle import ENDED


class World(Eventful):
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
                ready = [one for one in slot.coming() if slots.fits(self.people, one, self.now)]
                assert not ready, "a slot that is left dark though somebody is ready"
            if slot.wanted and not slot.serving and not self.closing:
                coming = slot.incoming or slot.spawn_at is not None or self.people.reloading
                assert coming, "a slot that nobody will ever fill"

    @invariant()
    def of_those_who_share_a_queue_nobody_stays_when_others_leave(self):
        """Who is retired goes on accepting from it, until it closes what it has accepted."""
        if not hasattr(self, "people") or self.people.options.balance != "shared":
            return
        shares = [self.processes[key] for key in self.live if key in self.processes]
        stays = {process.spawn.generation for process in shares if process.alive}
        for key, process in self.processes.items():
            member = self.people.members.get(key)
            if not process.alive or process.gave_up or process.spawn.party not in stays:
                continue
            if member.leaves or member.served_at is None:  # as it asked; see docs/limits.md
                continue
            assert member.state not in (State.SETTLING, State.DRAINING), "its queue is others' too"

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

    @rule()
    def all_goes_well(self):
        """What comes after happens to a cluster that serves, and not to one that starts."""
        if not self.people.closing:
            self.behave()

    # ---- and in the end -----------------------------------------------------------------

    def teardown(self):
        """From anywhere: with well-behaved workers every slot is served again,
        and a shutdown ends."""
        if not hasattr(self, "people"):
            return
        self.refuse_spawns = 0
        delayed = self.people.close_at is not None
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
            assert self.people.closing or not (self.held or self.people.deserted)
        closing.shutdown(self.people, self.now)
        self.closing = True
        self.obey()
        for _ in range(60):
            self.behave()
            self.time_passes(5.0)
        assert self.code is not None
        assert all(not process.alive for process in self.processes.values()) or self.people.killing

    def behave(self):
        if self.mold_imports:
            self.mold_ends(well=True)
        for key, process in list(self.processes.items()):
            if process.alive and not process.asked and not process.killed:
                process.connections = process.owing = process.half_open = 0
                starts = self.people.members[key].state in (State.STARTING, State.READY)
                if process.deaf and not starts:
                    continue  # it never listens again
                population.takes(self.people, key, self.now)
                population.online(self.people, key, self.now)
                for address in ADDRESSES:
                    self.begins_to_listen(key, address)
                self.takes_ours(key)
                readiness.said_ready(self.people, key, self.now)
                self.queues[process.lane] = 0
                process.connections = process.owing = process.half_open = 0
            elif process.alive:
                process.alive = False
                population.exited(self.people, key, 0, self.now)
            elif not process.gone:
                self.goes(key)
            self.obey()
        for process in self.processes.values():
            if not process.alive:
                self.queues[process.lane] = 0


class SharedWorld(World):
    """Of workers that have one queue, where little else happens: so it comes to more with them."""

    BALANCES = ("shared",)
    MORE = ({}, {}, {"bake": 2.0}, {"boots": 1})
    mold_begins = mold_ends = kernel_refuses = grows = gives_up = hangs_or_takes = None
    clients_do = clients_queue = accepts_one = says_disconnect = says_ready = None
    weigh_a_slot = drain_a_slot = resume_a_slot = restart_a_slot = terminate = None


# The same examples each time, so that a change fails by what it broke. To go and find:
# RECLUSTER_EXAMPLES=5000 python -m pytest tests/models/test_population.py
EXAMPLES = int(os.environ.get("RECLUSTER_EXAMPLES", "0"))
for world, examples in ((World, 150), (SharedWorld, 75)):
    world.TestCase.settings = settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        stateful_step_count=30,
        deadline=None,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    world.TestCase.pytestmark = [pytest.mark.timeout(600)]  # much to try, beside other work
TestPopulation = World.TestCase
TestSharedPopulation = SharedWorld.TestCase
