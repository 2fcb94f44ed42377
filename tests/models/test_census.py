"""Workers looked at in slices, and what is kept of them; with a loop that the test turns."""

import os
import select
from types import SimpleNamespace

import pytest

from recluster.metrics import census as module
from recluster.metrics.census import SLICE, Census
from recluster.metrics.procfacts import Facts, proportional


class Loop:
    """Turns one callback at a time, as the master's does."""

    def __init__(self):
        self.watched = {}

    def watch(self, fd, callback):
        self.watched[fd] = callback

    def unwatch(self, fd):
        del self.watched[fd]

    def turn(self):
        ready = select.select(list(self.watched), [], [], 0)[0]
        for fd in ready:
            self.watched[fd]()
        return bool(ready)


@pytest.fixture
def looked(monkeypatch):
    """Which workers were looked at; what is found of one is `facts`."""

    class Looked(list):
        def __init__(self):
            super().__init__()
            self.facts = []

        def at(self, keys):
            self += keys
            ready = {key: self.facts.pop(0) for key in keys if self.facts}
            found = {key: ready.get(key, Facts([key], cpu=1.0)) for key in keys}
            return {key: facts for key, facts in found.items() if facts}

    monkeypatch.setattr(module, "proportional", lambda pids: 4096)
    return Looked()


def test_a_few_are_known_at_once(looked):
    loop, answers = Loop(), []
    Census(loop, lambda: [1, 2], looked.at).ask(answers.append)
    assert [sorted(known) for known in answers] == [[1, 2]] and looked == [1, 2]
    assert not loop.watched


def test_many_take_turns_and_everybody_who_asks_meanwhile_gets_the_same(looked):
    count = 3 * SLICE + 1
    loop, answers = Loop(), []
    census = Census(loop, lambda: list(range(1, count + 1)), looked.at)
    census.ask(answers.append)
    assert not answers and len(looked) == SLICE
    census.ask(answers.append)
    seen = [len(looked)]
    while loop.turn():
        seen.append(len(looked))
    assert seen == [SLICE, 2 * SLICE, 3 * SLICE, count]
    assert [len(known) for known in answers] == [count, count]
    assert not loop.watched
    census.ask(answers.append)  # and again
    while loop.turn():
        pass
    assert len(answers) == 3 and len(looked) == 2 * count


def test_one_that_has_ended_is_forgotten(looked):
    keys, answers = [1, 2], []
    census = Census(Loop(), lambda: list(keys), looked.at)
    for _ in range(2):
        census.ask(lambda known: answers.append(sorted(known)))
        keys[:] = [2, 3]
    assert answers == [[1, 2], [2, 3]]


def test_cpu_time_never_goes_down_and_a_failed_look_forgets_nothing(looked):
    census, answers = Census(Loop(), lambda: [1], looked.at), []
    looked.facts += [Facts([1], cpu=5.0), Facts([1], cpu=4.0), None, Facts([1], cpu=6.0)]
    told = []
    for _ in range(4):
        census.ask(answers.append)
        told.append(answers[-1][1].cpu)
    assert told == [5.0, 5.0, 5.0, 6.0]
    engine = SimpleNamespace(counts=lambda worker: (1.0, 7, None))
    assert census.spent(engine, 1) == (6.0, 7) and census.spent(engine, 2) == (1.0, 7)

    def forgotten(worker):
        raise OSError

    assert census.spent(SimpleNamespace(counts=forgotten), 1) == (6.0, None)


def test_without_descriptors_it_is_one_turn(looked, monkeypatch):
    def refused(*unused):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module.os, "eventfd", refused)
    answers = []
    Census(Loop(), lambda: list(range(3 * SLICE)), looked.at).ask(answers.append)
    assert len(answers[0]) == 3 * SLICE


def test_pss_is_read_of_one_at_a_time_the_longest_unread_first(looked, monkeypatch):
    clock, read = [100.0], []

    def weigh(pids):
        read.append(pids[0])
        clock[0] += 0.001
        return 4096

    monkeypatch.setattr(module, "proportional", weigh)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.time, "thread_time", lambda: clock[0])
    census = Census(Loop(), lambda: [1, 2, 3], looked.at)
    census.ask(lambda known: None)
    assert read == [1], "one at a time"
    for _ in range(6):
        census.ask(lambda known: None)
    assert read == [1, 2, 3], "then it rests"
    for _ in range(4):
        clock[0] += 0.0011 * module.RESTS
        census.ask(lambda known: None)
    assert read == [1, 2, 3, 1, 2, 3, 1]


def test_a_fork_closes_what_is_the_parents(looked):
    loop = Loop()
    census = Census(loop, lambda: list(range(2 * SLICE)), looked.at)
    census.ask(lambda known: pytest.fail("nobody waits any more"))
    [fd] = loop.watched
    census.abandon()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_the_memory_of_this_process():
    assert proportional([os.getpid()]) > 1 << 20
    assert proportional([2**22 + 1]) is None
