"""A reload in trouble, a shutdown that drags on: command by command."""

import pytest
from populationcase import cluster, of, serving, spawned, until

from recluster.base.states import State
from recluster.options import Options
from recluster.population import addresses, closing, population, reloading, sizing, slots
from recluster.population import commands as c
from recluster.population.draining import Facts

# ---- R2: ready_timeout is one worker's own ---------------------------------------------


def test_a_ready_worker_waits_for_its_siblings_without_limit():
    people = cluster(3, boots=1, ready_timeout=9)
    reloading.reload(people, 10.0)
    now, ready = 10.0, []
    for _ in range(3):
        (key,) = spawned(people)
        ready.append(key)
        now += 8
        assert not of(until(people, now), c.Leave)
        population.listening(people, key, "a:1", now)
    assert serving(people) == ready


def test_who_gives_its_address_up_again_is_not_waited_for_without_limit():
    people = cluster(2, boots=2, ready_timeout=9)
    reloading.reload(people, 10.0)
    first, _ = spawned(people)
    population.listening(people, first, "a:1", 11.0)
    addresses.deaf(people, first, "a:1", False, 15.0)
    (reload,) = of(until(people, 24.1), c.Notice, "reload")
    assert not reload.event.ok
    assert serving(people) == [1, 2]


# ---- R3: a shutdown ends -----------------------------------------------------------------


def test_shutdown_timeout_is_30_seconds_or_timeout_where_that_is_shorter():
    assert Options.make({}, {}).shutdown_timeout == 30
    assert Options.make({"timeout": 7}, {}).shutdown_timeout == 7
    assert Options.make({"timeout": 7, "shutdown_timeout": 60}, {}).shutdown_timeout == 60
    assert Options.make({"timeout": 7}, {"RECLUSTER_SHUTDOWN_TIMEOUT": "30"}).shutdown_timeout == 30


def test_who_outlives_the_shutdown_is_killed_however_long_it_had_before():
    people = cluster(shutdown_timeout=20)
    reloading.reload(people, 10.0)
    population.listening(people, 2, "a:1", 13.0)  # 1 retires, and has an hour
    slots.take(people)
    closing.shutdown(people, 20.0)
    assert not of(until(people, 39.9), c.Kill)
    assert {one.worker for one in of(until(people, 40.0), c.Kill)} == {1, 2}


def leaves_before_shutdown(**given):
    people = cluster(shutdown_timeout=20, **given)
    reloading.reload(people, 10.0)
    population.listening(people, 2, "a:1", 13.0)
    until(people, 14.5)
    for second in (14.5, 14.6):
        population.inspected(people, 1, Facts(connections=0, catches_stop=True), second)
    assert people.members[1].state is State.STOPPING
    slots.take(people)
    return people


def urged(people, end, facts):
    """Who gets the stop signal once more until then, if that is what is seen of it."""
    for one in of(until(people, end), c.Inspect):
        population.inspected(people, one.worker, facts, end)
    return [one.worker for one in of(slots.take(people), c.Leave)]


def test_the_stop_signal_is_repeated_when_shutdown_begins_half_way_and_on_demand():
    people, idle = leaves_before_shutdown(), Facts(connections=2)
    closing.shutdown(people, 20.0)
    assert urged(people, 20.0, idle) == [1]
    closing.shutdown(people, 21.0, again=True)
    assert [one.worker for one in of(slots.take(people), c.Leave)] == [1]
    assert urged(people, 29.9, idle) == []
    assert 1 in urged(people, 30.0, idle)
    assert urged(people, 39.9, idle) == []


def test_who_owes_an_answer_does_not_get_the_stop_signal_a_second_time():
    people, busy = leaves_before_shutdown(), Facts(connections=2, owing=1)
    closing.shutdown(people, 20.0)
    assert urged(people, 20.0, busy) == []
    assert 1 not in urged(people, 30.0, busy)
    assert 1 in [one.worker for one in of(until(people, 40.0), c.Kill)]


def test_what_a_shutdown_waits_for_is_told_after_2_seconds_and_every_10():
    people = cluster(shutdown_timeout=30)
    closing.shutdown(people, 100.0)
    told = []
    for tenth in range(1, 300):
        commands = until(people, 100 + tenth / 10)
        told += [(tenth / 10, one.event.left) for one in of(commands, c.Notice, "waiting")]
        if of(commands, c.Notice, "waiting"):
            assert of(commands, c.Inspect)  # first, so that what is told is how it is now
    assert told == [(2.0, 28.0), (12.0, 18.0), (22.0, 8.0)]


def test_a_quick_shutdown_tells_nothing():
    people = cluster()
    closing.shutdown(people, 100.0)
    population.exited(people, 1, 0, 101.0)
    population.gone(people, 1, 101.0)
    population.inspected(people, 1, Facts(), 101.0)
    assert people.ended == 0
    assert not of(slots.take(people), c.Notice, "waiting")


# ---- R4: the cluster heals while a reload is under way --------------------------------------


def test_everything_crashed_and_a_reload_is_asked_the_respawns_go_on():
    people = cluster(4, boots=1)
    for key in (1, 2, 3, 4):
        population.exited(people, key, -9, 20.0)
    until(people, 20.0)
    respawns = [slot.incoming.id for slot in people.slots.values()]
    reloading.reload(people, 21.0)
    assert not spawned(people)  # two boots side by side would be later than one
    for key in respawns:
        population.listening(people, key, "a:1", 23.0)
    assert serving(people) == respawns
    # Now that all serve, the new code comes as ever: one at a time, in one step.
    for _ in range(4):
        assert people.reloading
        (key,) = spawned(people)
        population.listening(people, key, "a:1", 26.0)
    assert not people.reloading
    assert {slot.serving.generation for slot in people.slots.values()} == {2}


def test_a_respawn_that_takes_too_long_is_not_waited_for():
    people = cluster(2, boots=1)
    for key in (1, 2):
        population.exited(people, key, -9, 20.0)
    until(people, 20.0)
    reloading.reload(people, 21.0)  # the fix
    assert not of(until(people, 26.9), c.Spawn)
    new = [one.worker for one in of(until(people, 27.0), c.Spawn)]
    assert len(new) == 2  # nobody serves: both at once
    population.listening(people, new[1], "a:1", 30.0)
    assert serving(people) == [None, new[1]]
    population.listening(people, new[0], "a:1", 30.5)
    assert serving(people) == new
    assert not people.reloading
    stopping = [one for one in people.members.values() if one.state is State.STOPPING]
    assert len(stopping) == 2  # the respawns of before


def test_a_slot_whose_worker_dies_takes_its_ready_newcomer_at_once():
    people = cluster(2, boots=2)
    reloading.reload(people, 10.0)
    new = spawned(people)
    population.listening(people, new[0], "a:1", 13.0)
    assert serving(people) == [1, 2]
    population.exited(people, 1, -9, 14.0)
    assert serving(people) == [new[0], 2]
    assert people.reloading  # its sibling still boots
    population.listening(people, new[1], "a:1", 15.0)
    (reload,) = of(slots.take(people), c.Notice, "reload")
    assert reload.event.ok and serving(people) == new


def test_a_newcomer_gets_the_lanes_of_the_worker_that_dies_while_it_boots():
    people = cluster()
    reloading.reload(people, 10.0)
    (new,) = spawned(people)
    population.exited(people, 1, -9, 11.0)
    assert of(slots.take(people), c.Inherit) == [c.Inherit(new, 1)]


def test_the_only_worker_dies_while_the_new_code_hangs():
    people = cluster()
    reloading.reload(people, 10.0)
    (hangs,) = spawned(people)
    population.exited(people, 1, -9, 30.0)
    (spawn,) = of(until(people, 30.0), c.Spawn)  # what is on disk may be mended by now
    population.listening(people, spawn.worker, "a:1", 33.0)
    assert serving(people) == [spawn.worker]
    assert people.members[hangs].state is State.STOPPING
    assert not people.reloading


def test_reloads_faster_than_a_boot_do_not_keep_a_dark_cluster_dark():
    people = cluster()
    population.exited(people, 1, -9, 20.0)
    until(people, 20.0)
    first = people.slots[0].incoming.id
    for second in range(21, 23):
        reloading.reload(people, float(second))
    population.listening(people, first, "a:1", 23.0)
    assert serving(people) == [first]


def test_code_with_a_wrong_port_does_not_take_a_dark_slot():
    people = cluster(2)
    population.exited(people, 1, -9, 10.0)
    reloading.reload(people, 10.0)
    new = [one.worker for one in of(slots.take(people), c.Spawn)]
    for worker in new:
        population.listening(people, worker, "wrong:2", 12.0)
    until(people, 15.0)
    assert serving(people) == [None, 2]
    commands = until(people, 10.0 + people.options.ready_timeout)
    assert serving(people) == [None, 2]
    assert [one.event.ok for one in of(commands, c.Notice, "reload")] == [False]


def test_nor_a_slot_that_is_new():
    people = cluster(2)
    sizing.scale(people, 3, 10.0)
    [new] = [one.worker for one in of(slots.take(people), c.Spawn)]
    population.listening(people, new, "wrong:2", 12.0)
    until(people, 15.0)
    assert serving(people) == [1, 2, None]
    population.listening(people, new, "a:1", 16.0)
    assert serving(people) == [1, 2, new]


def test_a_sibling_that_fails_does_not_take_a_dark_slots_newcomer_with_it():
    people = cluster(2, boots=2)
    reloading.reload(people, 10.0)
    new = spawned(people)
    population.exited(people, 1, -9, 11.0)
    population.exited(people, new[1], 1, 12.0)
    assert not people.reloading
    assert people.slots[0].incoming.id == new[0]
    population.listening(people, new[0], "a:1", 13.0)
    assert serving(people) == [new[0], 2]


def test_a_reload_that_fails_after_it_healed_a_slot_says_so():
    people = cluster(2, boots=2)
    reloading.reload(people, 10.0)
    new = spawned(people)
    population.exited(people, 1, -9, 11.0)
    population.listening(people, new[0], "a:1", 13.0)
    population.exited(people, new[1], 1, 14.0)
    (reload,) = of(slots.take(people), c.Notice, "reload")
    assert "slots 0 have generation 2 already" in reload.event.why
    assert reload.event.changed


# ---- R5: rolled back ------------------------------------------------------------------------


def baked():
    people = cluster(2, boots=2, bake=15)
    reloading.reload(people, 10.0)
    new = spawned(people)
    for key in new:
        population.listening(people, key, "a:1", 13.0)
    assert serving(people) == new
    slots.take(people)
    return people, new


@pytest.mark.parametrize("balance", ["auto", "shared"])
def test_a_slot_that_the_new_code_has_had_is_waited_for_once_more(balance):
    """Its worker dies before the cutover, which would be of all but this slot."""
    people = cluster(2, boots=2, balance=balance)
    reloading.reload(people, 20.0)
    population.exited(people, 1, -9, 20.0)
    population.listening(people, 3, "a:1", 20.1)
    assert serving(people) == [3, 2]
    population.exited(people, 3, 1, 20.2)
    population.listening(people, 4, "a:1", 20.3)
    assert serving(people) == [None, 2]
    population.tick(people, 30.0)
    population.listening(people, 5, "a:1", 33.0)
    assert serving(people) == [5, 4]
    assert people.last_reload["ok"]


def test_a_roll_back_says_what_was_true():
    people, new = baked()
    population.exited(people, new[0], 1, 24.0)
    (reload,) = of(slots.take(people), c.Notice, "reload")
    assert "rolled back after 11.0 s: the new code served meanwhile" in reload.event.why
    assert reload.event.changed
    assert serving(people) == [1, 2]


def test_a_queue_that_rolled_back_code_does_not_take_is_not_held_for_ever():
    people, new = baked()
    population.exited(people, new[0], 1, 24.0)
    for tenth in range(70):
        population.inspected(people, new[1], Facts(queued=8), 24 + tenth / 10)
    commands = slots.take(people)
    assert [one.worker for one in of(commands, c.Leave)] == [new[1]]
    assert new[1] in [one.worker for one in of(until(people, 45.0), c.Kill)]
