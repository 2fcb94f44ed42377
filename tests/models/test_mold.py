"""Molds against a world in which they import, fail and are killed at any time."""

import hypothesis.strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from recluster.mold.policy import Ask, End, Fail, Make, Molds

FIRST = 1000


class World(RuleBasedStateMachine):
    @initialize(scouting=st.booleans())
    def begin(self, scouting):
        self.molds = Molds(FIRST, scouting)
        self.scouting = scouting
        self.scouts = {}  # workers that show, and live -> their molds
        self.generation_of = {}  # of the molds that run
        self.killed = set()
        self.is_ready = set()
        self.failed = set()
        self.kept = {1}
        self.wants = {}  # worker -> generation, of those without an outcome
        self.asked = {}  # worker -> mold
        self.last = 0

    def obey(self):
        for command in self.molds.take():
            if isinstance(command, Make):
                assert command.mold not in self.generation_of
                usable = self.generation_of.keys() - self.killed - self.failed
                others = {self.generation_of[mold] for mold in usable}
                assert command.generation not in others, "two of a generation"
                self.generation_of[command.mold] = command.generation
            elif isinstance(command, Ask):
                assert command.mold in self.is_ready - self.killed
                assert self.wants[command.worker] == self.generation_of[command.mold]
                assert command.worker not in self.asked, "two may wait at its gate"
                self.asked[command.worker] = command.mold
                if command.shows:
                    assert command.mold not in self.scouts.values(), "one shows enough"
                    self.scouts[command.worker] = command.mold
                elif self.scouting:
                    raise AssertionError("nobody knows yet what to import")
            elif isinstance(command, Fail):
                assert command.why
                del self.wants[command.worker]
                self.asked.pop(command.worker, None)
                self.scouts.pop(command.worker, None)
            elif isinstance(command, End):
                assert command.mold not in self.killed
                self.killed.add(command.mold)

    @rule(generation=st.integers(1, 3))
    def want(self, generation):
        self.last += 1
        self.wants[self.last] = generation
        self.molds.wanted(self.last, generation)
        self.obey()

    @precondition(lambda self: self.generation_of.keys() - self.is_ready - self.failed)
    @rule(data=st.data(), well=st.booleans())
    def imports(self, data, well):
        importing = self.generation_of.keys() - self.is_ready - self.failed
        mold = data.draw(st.sampled_from(sorted(importing)))
        if well:
            self.is_ready.add(mold)
            self.molds.ready(mold)
        else:
            self.failed.add(mold)
            self.molds.failed(mold, "ImportError")
        self.obey()

    @precondition(lambda self: self.generation_of)
    @rule(data=st.data())
    def ends(self, data):
        """By itself, or because it was killed."""
        mold = data.draw(st.sampled_from(sorted(self.generation_of)))
        del self.generation_of[mold]
        self.scouts = {one: of for one, of in self.scouts.items() if of != mold}
        for known in (self.killed, self.is_ready, self.failed):
            known.discard(mold)
        self.molds.ended(mold, "killed")
        self.obey()

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), well=st.booleans())
    def forks(self, data, well):
        worker = data.draw(st.sampled_from(sorted(self.asked)))
        if well:
            del self.asked[worker], self.wants[worker]
            self.molds.born(worker)
        else:
            self.scouts.pop(worker, None)
            self.molds.unborn(worker, "no memory")
        self.obey()

    def born_scouts(self):
        """Of molds that can be asked what they have shown."""
        usable = self.is_ready - self.killed - self.failed
        return {one for one, m in self.scouts.items() if one not in self.asked and m in usable}

    @precondition(lambda self: self.scouting and self.born_scouts())
    @rule()
    def shows(self):
        self.scouting = False
        self.molds.scouted()
        self.obey()

    @precondition(lambda self: self.born_scouts())
    @rule(data=st.data())
    def scout_ends(self, data):
        worker = data.draw(st.sampled_from(sorted(self.born_scouts())))
        del self.scouts[worker]
        self.molds.lost(worker)
        self.obey()

    @precondition(lambda self: self.wants)
    @rule(data=st.data(), stuck=st.booleans())
    def cancels(self, data, stuck):
        worker = data.draw(st.sampled_from(sorted(self.wants)))
        del self.wants[worker]
        self.asked.pop(worker, None)
        self.scouts.pop(worker, None)
        self.molds.cancelled(worker, stuck=stuck)
        self.obey()

    @rule(generations=st.sets(st.integers(1, 3), min_size=1))
    def keeps(self, generations):
        self.molds.keep(generations)
        self.obey()
        waited_for = set(self.wants.values())
        for mold in self.generation_of.keys() - self.killed - self.failed:
            assert self.generation_of[mold] in generations | waited_for

    @invariant()
    def nobody_is_forgotten(self):
        for worker, generation in self.wants.items():
            places = [m for m in self.molds.all.values() if worker in m.waiting + m.asked]
            assert [mold.generation for mold in places] == [generation]
            assert places[0].id in self.generation_of, "it waits for nobody"
            if worker not in self.asked:
                ready = places[0].id in self.is_ready - self.killed
                shown = self.scouting and places[0].id in self.scouts.values()
                assert not ready or shown, "it could be asked"


TestMolds = World.TestCase
