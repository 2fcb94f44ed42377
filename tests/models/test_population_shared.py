"""Workers that share one queue: who accepts from it leaves with all its like, or stays."""

import pytest
from populationcase import cluster, of, serving, spawned, until

from recluster.base.states import State
from recluster.population import closing, population, readiness, reloading, sizing, slots
from recluster.population import commands as c


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


def mixed(ready=(), **given):
    """Three slots, of which one was dark, and has the first of generation 2. `ready`: the slots
    in which there is another. Returns the people, and the new workers by slot."""
    people = cluster(3, boots=3, balance="shared", **given)
    for key in people.members:
        readiness.said_ready(people, key, 3.0)
    slots.take(people)
    reloading.reload(people, 20.0)
    new = {people.members[key].slot: key for key in spawned(people)}
    population.exited(people, 2, -9, 20.2)
    for slot in (1, *ready):
        population.listening(people, new[slot], "a:1", 20.5)
        readiness.said_ready(people, new[slot], 20.5)
    assert serving(people) == [1, new[1], 3]
    slots.take(people)
    return people, new


def states(people, keys):
    return {people.members[key].state for key in keys}


def test_the_first_serves_in_a_dark_slot_at_once():
    people, new = mixed()
    for slot in (0, 2):
        assert not of(slots.take(people), c.Retired)
        population.listening(people, new[slot], "a:1", 20.6)
    assert those_that_serve(people) == {2}
    commands = slots.take(people)
    assert of(commands, c.Retired) == [c.Retired((1, 3))]
    assert [notice.event.ok for notice in of(commands, c.Notice, "reload")] == [True]


def ends_by_one_that_cannot_boot(people, new):
    population.exited(people, new[2], 1, 20.7)


def ends_by_one_that_is_late(people, new):
    population.tick(people, 20.0 + people.options.ready_timeout)


def ends_by_a_newer_reload(people, new):
    reloading.reload(people, 20.7)


def ends_by_a_rollback(people, new):
    reloading.rollback(people, 20.7)


def ends_by_scaling_down(people, new):
    assert sizing.scale(people, 1, 20.7) is None


ENDS = [
    ends_by_one_that_cannot_boot, ends_by_one_that_is_late, ends_by_a_newer_reload,
    ends_by_a_rollback, ends_by_scaling_down,
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_of_a_reload_that_fails_all_leave_at_once_and_are_drained(end):
    """They have all accepted from one queue: also who waits for its siblings."""
    people, new = mixed(ready=(0,), ready_timeout=5.0)
    end(people, new)
    commands = slots.take(people)
    assert states(people, (new[0], new[1])) == {State.SETTLING}
    assert those_that_serve(people) == {1, None}
    assert not {one.worker for one in of(commands, c.Leave)} & {new[0], new[1]}
    (live,) = of(commands, c.Live)
    assert live.workers == {1, 3}
    assert {key for one in of(commands, c.Retired) for key in one.workers} == {new[0], new[1]}
    if end is ends_by_scaling_down:
        return
    (told,) = of(commands, c.Notice, "reload")
    assert told.event.changed and "slots 1 had generation 2 meanwhile" in told.event.why
    more = until(people, 30.0)
    assert [one.slot for one in of([*commands, *more], c.Spawn) if one.slot == 1]


def test_one_that_listens_and_is_not_ready_is_drained_too():
    people, new = mixed(ready_when="ready", hold=None)
    population.listening(people, new[2], "a:1", 20.6)
    population.exited(people, new[0], 1, 20.7)
    assert states(people, (new[1], new[2])) == {State.SETTLING}


def test_the_first_stays_where_none_that_accepts_has_to_leave():
    """As with other policies: one that does not listen yet shares nothing."""
    people, new = mixed()
    population.exited(people, new[0], 1, 20.7)
    assert people.members[new[2]].state is State.STOPPING
    assert serving(people) == [1, new[1], 3]
    told = of(slots.take(people), c.Notice, "reload")[0].event
    assert told.changed and "slots 1 have generation 2 already" in told.why


def test_slots_that_are_taken_away_one_after_the_other_all_go():
    people = cluster(4, boots=3, balance="shared")
    sizing.scale(people, 3, 20.0)
    for key in (5, 6):  # the third one of the new still boots
        population.listening(people, key, "a:1", 20.1)
    assert sizing.scale(people, 1, 20.2) is None
    (key,) = [key for key, member in people.members.items() if member.generation == 3]
    population.listening(people, key, "a:1", 20.3)
    assert [slot.wanted for slot in people.slots.values()] == [True, False, False, False]


def test_a_slot_that_is_taken_away_gets_nobody_more():
    """Its worker died meanwhile, and the reload waited for another one there."""
    people = cluster(2, boots=2, balance="shared")
    sizing.scale(people, 1, 20.0)
    (new,) = spawned(people)
    population.exited(people, 2, -9, 20.0)
    assert not of(until(people, 30.0), c.Spawn)
    population.listening(people, new, "a:1", 30.0)
    assert [slot.wanted for slot in people.slots.values()] == [True, False]


def test_one_that_is_late_alone_is_drained_and_replaced():
    people = cluster(2, boots=2, balance="shared", ready_when="ready", ready_timeout=5.0)
    for key in people.members:
        readiness.said_ready(people, key, 3.0)
    population.exited(people, 1, -9, 20.0)
    late = next(one.worker for one in of(until(people, 21.0), c.Spawn))
    population.listening(people, late, "a:1", 21.0)
    commands = until(people, 27.0)
    assert people.members[late].state is State.SETTLING
    assert not [one for one in of(commands, c.Leave) if one.worker == late]
    assert people.slots[0].incoming.id != late


def test_a_shutdown_drains_all_of_them():
    people, new = mixed(ready=(0,))
    closing.shutdown(people, 20.7)
    assert states(people, (1, 3, new[0], new[1])) == {State.SETTLING}


def test_the_first_serves_where_nobody_does():
    people = cluster(3, boots=3, balance="shared")
    reloading.reload(people, 20.0)
    first = spawned(people)[0]
    for key in (1, 2, 3):
        population.exited(people, key, -9, 20.2)
    population.listening(people, first, "a:1", 20.5)
    assert those_that_serve(people) == {2, None}
    population.exited(people, first + 1, 1, 20.6)  # there is nothing to go back to
    assert those_that_serve(people) == {2, None}


def test_a_boot_in_a_dark_slot_outlives_its_reload():
    """Reloads that follow each other faster than a boot do not keep it dark."""
    people = cluster(3, boots=3, balance="shared")
    population.exited(people, 2, -9, 20.0)
    reloading.reload(people, 20.1)
    first = next(one for one in of(slots.take(people), c.Spawn) if one.slot == 1)
    for at in (21.0, 22.0, 23.0):
        reloading.reload(people, at)
    population.listening(people, first.worker, "a:1", 23.1)
    assert serving(people) == [1, first.worker, 3]


def test_a_boot_whose_like_leave_does_not():
    """Who leaves would accept from its queue, were it to serve."""
    people = cluster(3, boots=3, balance="shared")
    reloading.reload(people, 20.0)
    new = {people.members[key].slot: key for key in spawned(people)}
    population.exited(people, 2, -9, 20.2)
    population.listening(people, new[0], "a:1", 20.5)
    population.exited(people, new[2], 1, 20.6)
    assert states(people, (new[0],)) == {State.SETTLING}
    assert states(people, (new[1],)) == {State.STOPPING}
    slots.take(people)
    until(people, 30.0)
    assert people.slots[1].incoming.generation == 1


def test_no_slot_goes_while_a_canary_comes():
    people = cluster(3, boots=3, balance="shared")
    reloading.reload(people, 20.0, 0.5)
    assert "canary" in sizing.scale(people, 2, 20.1)
    assert people.size == 3
