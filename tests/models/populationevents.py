"""What may happen in the world of test_population.py, in any order, and what somebody asks for."""

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule
from populationworld import ADDRESSES, Commanded

from recluster.population import addresses, closing, population, readiness, reloading, sizing


class Eventful(Commanded):
    # ---- what happens in the world ---------------------------------------------

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
        while (at := population.deadline(self.people)) is not None and at <= end:
            spins = 0 if at > self.now else spins + 1
            assert spins < 20, "a deadline that does not pass: a busy loop"
            self.now = max(self.now, at)
            population.tick(self.people, self.now)
            self.obey()
        self.now = end

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def comes_up(self, data):
        population.online(self.people, self.some(data, self.alive()), self.now)
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
        self.all_of_a_party_accept()
        population.listening(self.people, key, address, self.now, proves)
        self.obey()

    @precondition(lambda self: any(self.processes[key].proving for key in self.alive()))
    @rule(data=st.data())
    def takes_our_connection(self, data):
        self.takes_ours(
            self.some(data, [key for key in self.alive() if self.processes[key].proving])
        )

    def takes_ours(self, key):
        self.processes[key].proving = False
        readiness.accepting(self.people, key, self.now)
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
        process.gave_up = True
        if not partly:
            process.listening.discard(address)
            process.deaf = not process.listening
        addresses.deaf(self.people, key, address, partly, self.now)
        self.obey()
        if was_serving and not slot.incoming:  # it stays until it has a successor
            assert slot.serving is member

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def says_ready(self, data):
        readiness.said_ready(self.people, self.some(data, self.alive()), self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def says_disconnect(self, data):
        population.said_disconnect(self.people, self.some(data, self.alive()), self.now)
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
            population.takes(self.people, key, self.now)
        else:
            population.hung(self.people, key, 1, self.now)
        self.obey()

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), status=st.sampled_from([0, 1, -9, -11]))
    def dies(self, data, status):
        key = self.some(data, self.alive())
        self.processes[key].alive = False
        population.exited(self.people, key, status, self.now)
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
            population.gone(self.people, key, self.now)
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
        if self.people.options.balance == "shared" and self.people.reloading:  # may leave as one
            new = self.people.reloading.generation
            before = {key for key in before if self.people.members[key].generation != new}
        if canary:
            back = [slot for slot in slots if slot.previous]
            if back and self.people.options.balance == "shared":
                back = list(slots)  # all leave
            before -= {slot.serving.id for slot in back if slot.serving}
            before |= {slot.previous.id for slot in slots if slot.previous}
        reloading.reload(self.people, self.now)
        self.obey()
        assert before <= self.live

    @rule(part=st.sampled_from([0.01, 0.1, 0.5]))
    def reload_by_canary(self, part):
        if not self.people.options.surge:
            reloading.reload(self.people, self.now, part)
            self.obey()

    @rule()
    def promote(self):
        probation = self.people.baking
        why = reloading.promote(self.people, self.now)
        assert (why is None) == (probation is not None)
        assert not self.people.baking
        self.obey()

    @rule()
    def rollback(self):
        under_way = self.people.reloading or self.people.baking
        why = reloading.rollback(self.people, self.now)
        assert (why is None) == (under_way is not None)
        self.obey()

    @rule(slot=st.integers(0, 4), weight=st.sampled_from([0, 1, 3]))
    def weigh_a_slot(self, slot, weight):
        if self.people.options.balance != "weighted":
            return
        before = dict(self.people.weights)
        why = sizing.weigh(self.people, {slot: float(weight)})
        if why:
            assert self.people.weights == before
        self.obey()

    @rule(count=st.integers(1, 5))
    def scale(self, count):
        refusing = self.refuse_spawns and self.people.options.balance == "shared"
        why = sizing.scale(self.people, count, self.now)
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
        why = sizing.restart(self.people, slot, self.now)
        refused = bool(self.refuse_spawns)
        self.obey()
        assert before is None or self.people.slots[slot].serving is before
        if not why and not refused:
            one = self.people.slots[slot]
            assert one.coming() or one.spawn_at is not None

    @rule(slot=st.integers(0, 4))
    def drain_a_slot(self, slot):
        why = sizing.drain(self.people, slot, self.now)
        self.obey()
        if not why:
            assert self.people.slots[slot].drained
            assert any(other.serving for other in self.people.slots.values())

    @rule(slot=st.integers(0, 4))
    def resume_a_slot(self, slot):
        why = sizing.resume(self.people, slot, self.now)
        self.obey()
        if not why:
            assert self.people.slots[slot].wanted and not self.people.slots[slot].drained

    @rule()
    def shutdown(self):
        closing.shutdown(self.people, self.now)
        self.closing = self.people.closing
        self.obey()

    @rule()
    def terminate(self):
        self.closing = self.killing = True
        closing.terminate(self.people, self.now)
        self.obey()
        assert all(self.processes[key].killed for key in self.alive())
