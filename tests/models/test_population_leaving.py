"""Who is asked to leave, when, and what is waited for: command by command.

The first half are stories for what a change might quietly take away: each was a mutant of
the pure layer that no test had noticed.
"""

import pytest
from populationcase import cluster, of, serving, spawned, until

from recluster.base.states import State
from recluster.options import Options
from recluster.population import closing, population, reloading, slots
from recluster.population import commands as c
from recluster.population import state as p
from recluster.population.backoff import Backoff
from recluster.population.draining import Facts

# ---- mutants that nobody had noticed ----------------------------------------------------------


def retired(**given):
    """Worker 1 retires at 13.0."""
    people = cluster(**given)
    reloading.reload(people, 10.0)
    population.listening(people, 2, "a:1", 13.0)
    slots.take(people)
    return people


def drains(people, facts, now):
    population.inspected(people, 1, facts, now)
    return people.members[1].state


def test_half_open_handshakes_are_waited_for():
    people = retired()
    assert drains(people, Facts(half_open=1), 14.5) is State.SETTLING
    assert drains(people, Facts(half_open=1), 22.9) is State.SETTLING
    assert drains(people, Facts(half_open=1), 23.0) is State.DRAINING  # SYN-ACKs are repeated


@pytest.mark.parametrize(
    ("facts", "looks"),
    [
        (Facts(connections=3), 2),  # it is steered around, and nothing is on its way
        (Facts(connections=3, half_open=1), 10),
        (Facts(connections=None), 10),  # of handshakes nothing is known
    ],
)
def test_who_settles_is_looked_at_again_and_again_only_while_something_may_come(facts, looks):
    people = retired(drain_settle=1)
    made = 0
    while people.members[1].state is State.SETTLING and (at := population.deadline(people)) <= 14.0:
        population.tick(people, at)
        for _ in of(slots.take(people), c.Inspect):
            made += 1
            population.inspected(people, 1, facts, at)
    assert made == pytest.approx(looks, abs=1)


def test_an_answer_that_is_owed_is_waited_for_though_the_server_catches_the_signal():
    people = retired(drain_owes=8)
    owes = Facts(connections=1, owing=1, catches_stop=True)
    assert drains(people, owes, 14.0) is State.DRAINING
    assert drains(people, owes, 21.9) is State.DRAINING
    assert drains(people, owes, 22.0) is State.STOPPING


def test_a_server_that_dies_of_the_signal_gets_it_after_a_quiet_time():
    people = retired(drain_quiet=4)
    assert drains(people, Facts(connections=1, quiet=3.9), 14.0) is State.DRAINING
    assert drains(people, Facts(connections=1, quiet=3.9), 14.1) is State.DRAINING
    assert drains(people, Facts(connections=1, quiet=4.0), 14.2) is State.STOPPING


def test_a_hurried_generation_does_not_die_before_it_has_settled():
    people = cluster(drain_settle=60, max_draining=1)
    for second in (10.0, 11.0):
        reloading.reload(people, second)
        (key,) = spawned(people)
        population.listening(people, key, "a:1", second)
    assert people.members[1].state is State.STOPPING
    assert not of(until(people, 69.9), c.Kill)
    assert 1 in [one.worker for one in of(until(people, 70.1), c.Kill)]


def test_timeout_does_not_fire_before_the_settle_ends():
    people = retired(timeout=0, drain_settle=3)
    assert not of(until(people, 15.9), c.Kill)
    assert [one.worker for one in of(until(people, 16.0), c.Kill)] == [1]


@pytest.mark.parametrize("state", [State.SERVING, State.ABORTED])
def test_the_death_of_a_new_worker_rolls_back_though_it_hung(state):
    people = cluster(bake=60, hang_timeout=5)
    reloading.reload(people, 10.0)
    population.listening(people, 2, "a:1", 13.0)
    population.hung(people, 2, 1, 14.0)
    if state is State.ABORTED:
        until(people, 19.0)
    assert people.members[2].state is state
    population.exited(people, 2, -6, 19.5)
    assert serving(people) == [1]


def test_a_worker_that_lived_for_less_than_10_seconds_was_not_healthy():
    backoff = Backoff(1.0, 30.0)
    pauses = []
    for life in (9.9, 9.9, 9.9, 100.0):
        pauses.append(backoff.next_spawn(1000.0, 0.0, life, lambda: 0.5) - 1000.0)
    assert pauses == [0, 1, 2, 0]


def test_strays_of_the_dead_are_waited_for_5_seconds_at_the_end():
    people = cluster()
    population.exited(people, 1, -9, 10.0)
    closing.shutdown(people, 10.0)
    until(people, 14.9)
    assert people.ended is None
    until(people, 15.0)
    population.inspected(people, 1, Facts(), 15.0)
    assert people.ended == 0


def test_a_canary_gets_its_part():
    people = cluster(2, boots=2)
    reloading.reload(people, 10.0, 0.25)
    for key in spawned(people):
        population.listening(people, key, "a:1", 13.0)
    live = of(slots.take(people), c.Live)[-1]
    assert live.workers == {1, 2, 3, 4}
    new = sum(live.weights.get(key, 1) for key in (3, 4))
    assert new / sum(live.weights.get(key, 1) for key in live.workers) == pytest.approx(0.25)


def test_who_takes_again_is_not_ended_for_having_hung():
    people = cluster(hang_timeout=5)
    population.hung(people, 1, 1, 10.0)
    population.takes(people, 1, 12.0)
    assert not of(until(people, 100.0), c.Abort)
    assert serving(people) == [1]


def test_a_worker_that_is_not_wanted_any_more_and_does_not_go_is_killed():
    people = cluster()
    reloading.reload(people, 10.0)
    (new,) = spawned(people)
    reloading.rollback(people, 11.0)
    assert [one.worker for one in of(slots.take(people), c.Leave)] == [new]
    assert [one.worker for one in of(until(people, 16.0), c.Kill)] == [new]


def test_strays_of_who_dies_in_the_shutdown_are_waited_for_5_seconds_too():
    people = cluster()
    closing.shutdown(people, 10.0)
    population.exited(people, 1, 0, 12.0)
    until(people, 16.9)
    assert people.ended is None
    assert of(until(people, 17.0), c.Inspect)


def test_nobody_is_killed_by_a_shutdown_before_it_has_settled():
    people = cluster(drain_settle=5, shutdown_timeout=2)
    closing.shutdown(people, 10.0)
    assert not of(until(people, 14.9), c.Kill)
    assert of(until(people, 15.0), c.Kill)


# ---- R8, R9: who is asked when ------------------------------------------------------------------


def asked(people, facts, now):
    """Whether worker 1, retired at 13.0 and draining since 14.0, gets the stop signal then."""
    population.inspected(people, 1, facts, 14.0)
    population.inspected(people, 1, facts, now)
    return people.members[1].state is State.STOPPING


def test_who_has_spoken_is_left_alone_until_its_connections_are_closed():
    busy = Facts(connections=1, quiet=99, catches_stop=True)
    people = retired()
    population.spoke(people, 1)
    assert not asked(people, busy, 3000.0)
    assert asked(people, Facts(connections=0, catches_stop=True), 3000.1)


def test_who_has_read_the_disconnect_may_act_upon_it():
    free = Facts(connections=0, heard=True)
    assert not asked(retired(), free, 14.9)
    assert asked(retired(), free, 15.0)


@pytest.mark.parametrize("spoken, when", [(False, 18.0), (True, None)])
def test_a_worker_that_never_listened_has_its_time(spoken, when):
    people = p.Population(Options.make({"workers": 1, "ready_when": "started"}, {}), lambda: 0.5)
    population.start(people, 0.0)
    population.online(people, 1, 0.0)
    if spoken:
        population.spoke(people, 1)
    reloading.reload(people, 10.0)
    population.online(people, 2, 13.0)
    population.inspected(people, 1, Facts(connections=0), 14.0)
    population.inspected(people, 1, Facts(connections=0), 18.9)
    assert people.members[1].state is State.DRAINING
    population.inspected(people, 1, Facts(connections=0), 19.0)
    assert (people.members[1].state is State.STOPPING) == (when is not None)
    closing.shutdown(people, 20.0)
    assert 1 in [one.worker for one in of(until(people, 35.0), c.Leave)] or not spoken


def test_of_node_nothing_is_believed_until_one_was_seen_to_finish():
    streams = Facts(connections=1, catches_stop=True, always_catches=True)
    assert not asked(retired(), streams, 3000.0)
    people = retired()
    people.dies_of_stop = False
    assert asked(people, streams, 15.0)


@pytest.mark.parametrize(
    "after, connections, learned", [(0.1, 1, True), (0.2, 1, False), (0.1, 0, False)]
)
def test_who_dies_at_once_of_the_signal_with_connections_open_did_not_finish(
    after, connections, learned
):
    people = retired()
    population.inspected(people, 1, Facts(connections=connections, catches_stop=True), 14.0)
    population.inspected(people, 1, Facts(connections=connections, catches_stop=True), 15.0)
    population.exited(people, 1, 0, 15.0 + after)
    assert people.dies_of_stop is learned


def test_drain_quiet_holds_for_who_catches_the_signal_when_it_was_given():
    moves = Facts(connections=1, quiet=1.0, catches_stop=True)
    assert asked(retired(), moves, 14.5)
    assert not asked(retired(drain_quiet=5), moves, 3000.0)
    assert not asked(retired(drain_quiet="timeout"), Facts(connections=1, quiet=99), 3000.0)
