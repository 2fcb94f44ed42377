"""Workers that share one queue: who accepts from it leaves with all its like, or stays."""

import pytest
from populationcase import cluster, of, spawned, until

from recluster.base.states import State
from recluster.population import commands as c
from recluster.population import population, reloading, sizing, slots


def those_that_serve(people):
    return {slot.serving.generation if slot.serving else None for slot in people.slots.values()}


def test_a_canary_that_is_rolled_back_leaves_as_one():
    """Its worker in a slot whose old one had died stayed, and those that left went on
    accepting from their queue until they ended, with what they had taken."""
    people = cluster(3, boots=3, balance="shared")
    population.exited(people, 2, -9, 20.0)
    reloading.reload(people, 20.1, 0.5)
    for key in spawned(people):
        population.listening(people, key, "a:1", 20.5)
    assert people.baking
    assert those_that_serve(people) == {2}
    slots.take(people)
    assert reloading.rollback(people, 21.0) is None
    assert those_that_serve(people) == {1, None}
    (retired,) = of(slots.take(people), c.Retired)
    assert len(retired.workers) == 3
    population.tick(people, 21.0)
    (born,) = of(slots.take(people), c.Spawn)
    assert (born.slot, born.generation) == (1, 1)


@pytest.mark.parametrize("ok", [True, False])
def test_none_serves_before_the_others(ok):
    people = cluster(3, boots=3, balance="shared")
    reloading.reload(people, 20.0)
    first, *_, last = spawned(people)
    population.exited(people, 1, -9, 20.2)
    population.listening(people, first, "a:1", 20.5)
    assert those_that_serve(people) == {1, None}
    if ok:
        for key in (first + 1, last):
            population.listening(people, key, "a:1", 20.6)
        assert those_that_serve(people) == {2}
    else:
        population.exited(people, last, 1, 20.6)
        assert those_that_serve(people) == {1, None}
        assert people.members[first].state is not State.READY
        population.tick(people, 30.0)
        assert people.slots[0].incoming.generation == 1


def test_the_first_serves_where_nobody_does():
    people = cluster(3, boots=3, balance="shared")
    reloading.reload(people, 20.0)
    first = spawned(people)[0]
    for key in (1, 2, 3):
        population.exited(people, key, -9, 20.2)
    population.listening(people, first, "a:1", 20.5)
    assert those_that_serve(people) == {2, None}


def test_no_slot_goes_while_a_canary_comes():
    people = cluster(3, boots=3, balance="shared")
    reloading.reload(people, 20.0, 0.5)
    assert "canary" in sizing.scale(people, 2, 20.1)
    assert people.size == 3


def test_a_slot_that_is_taken_away_gets_nobody_more():
    """Its worker died meanwhile, and the reload waited for another one there."""
    people = cluster(2, boots=2, balance="shared")
    sizing.scale(people, 1, 20.0)
    (new,) = spawned(people)
    population.exited(people, 2, -9, 20.0)
    assert not of(until(people, 30.0), c.Spawn)
    population.listening(people, new, "a:1", 30.0)
    assert [slot.wanted for slot in people.slots.values()] == [True, False]
