"""Owns: what workers that retire together are spared: the kernel goes through all connections
of a network namespace for each dump."""

import collections

import pytest

from ..factscase import UNKNOWN
from ..harness import Clock, check

BETWEEN = 0.05  # seconds: csrc/drain/facts.c


@pytest.fixture
def pair(serve):
    return serve(1), serve(2)


def takes(engine, dial, server):
    """They have one address: it goes to who is chosen."""
    engine.steer(server.number)
    dial(server)
    server.do("accept()")


def retire(engine, *servers):
    engine.steer()
    numbers = [server.number for server in servers]
    check(engine.lib.rc_drain_begin(engine.pointer, numbers, len(numbers)))


def passes(seconds):
    clock = Clock(seconds)
    while not clock.is_over():
        pass


def questions(fault, *steps):
    """How often the kernel was asked, and what the steps returned."""
    asked = collections.Counter()
    with fault.before_each_call(lambda name: asked.update([name])):
        results = [step() for step in steps]
    return asked[b"sendmsg"], results


def flows_of(engine, number):
    flows = engine.ffi.new("struct rc_flows *")
    check(
        engine.lib.rc_drain_flows(engine.struct, engine.lib.rc_find(engine.struct, number), flows)
    )
    count = flows.count
    engine.lib.rc_flows_free(flows)
    return count


def test_one_dump_is_good_for_all(engine, pair, dial, fault):
    first, second = pair
    for server in (first, second, second):
        takes(engine, dial, server)
    retire(engine, first, second)
    passes(BETWEEN)
    asked, counts = questions(fault, first.count, second.count)
    assert counts == [(1, 1), (2, 2)]
    assert asked == 1 + 3, "one dump, and each connection by itself"


def test_what_was_dumped_at_once_is_good_for_nobody_else(engine, pair, dial, fault):
    """Another may have just taken a connection from its queue then."""
    first, second = pair
    takes(engine, dial, second)
    retire(engine, first, second)
    first.look()
    asked, counts = questions(fault, second.count)
    assert counts == [(1, 1)] and asked == 1 + 1


def test_what_came_since_the_dump_is_found(engine, pair, dial):
    first, second = pair
    retire(engine, first, second)
    engine.steer(2)
    passes(BETWEEN)
    assert first.count() == second.count() == (0, 0)
    dial(second)
    assert second.count() == UNKNOWN[:2], "it waits"
    second.do("accept()")
    assert second.count() == UNKNOWN[:2], "something was there at the last look"
    passes(BETWEEN)
    assert second.count() == (1, 1)


def test_who_was_seen_to_have_none_has_none_to_give(engine, server, dial, fault):
    client = dial(server)
    server.do("accept()")
    retire(engine, server)
    assert server.count() == (1, 1)
    assert questions(fault, lambda: flows_of(engine, 1)) == (1, [1])
    client.close()
    server.do("taken.pop().close()")
    server.until(0, 0)
    assert questions(fault, lambda: flows_of(engine, 1)) == (0, [0])


def test_who_is_chosen_still_is_asked(engine, server, dial, fault):
    """What comes and is taken between two looks shows in neither."""
    server.begin()
    assert server.count() == (0, 0)
    dial(server)
    server.do("accept()")
    assert questions(fault, lambda: flows_of(engine, 1)) == (1, [1])
