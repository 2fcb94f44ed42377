"""Who is live is a function of how things are, told once a turn and in the right place."""

import inspect

import pytest

from recluster.options import Options
from recluster.population import closing, population, readiness, recovery, reloading, sizing, slots
from recluster.population import commands as c
from recluster.population.live import live, placed, weigh
from recluster.population.state import Population


def cluster(workers=2, **options):
    people = Population(
        Options.make({"workers": workers, "boots": workers, **options}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    return people


def serve(people, now):
    for worker, member in list(people.members.items()):
        if member.state.value == "starting":
            population.online(people, worker, now)
            population.listening(people, worker, "a:1", now)
            readiness.ready(people, worker, now)


def only(commands):
    (found,) = [one for one in commands if isinstance(one, c.Live)]
    return found


def before(commands, first, second):
    kinds = [type(one) for one in commands]
    return max(i for i, k in enumerate(kinds) if k is first) < kinds.index(second)


def test_a_worker_that_boots_is_spawned_before_it_is_live():
    commands = slots.take(cluster())
    assert only(commands).workers == {1, 2}  # nobody serves: clients wait for them
    assert before(commands, c.Spawn, c.Live)


def test_nothing_is_told_twice():
    people = cluster()
    slots.take(people)
    serve(people, 1.0)
    slots.take(people)
    population.tick(people, 1.1)
    assert not [one for one in slots.take(people) if isinstance(one, c.Live)]


def test_a_cutover_is_one_change_before_anything_that_looks_at_the_old():
    people = cluster()
    serve(people, 1.0)
    slots.take(people)
    reloading.reload(people, 2.0)
    serve(people, 3.0)
    commands = slots.take(people)
    assert only(commands).workers == {3, 4}
    assert before(commands, c.Live, c.Retired)


def test_at_a_shutdown_the_lanes_close_first():
    people = cluster()
    serve(people, 1.0)
    slots.take(people)
    closing.shutdown(people, 2.0)
    commands = slots.take(people)
    assert only(commands).workers == set()
    assert before(commands, c.CloseLanes, c.Live)
    assert before(commands, c.Live, c.Retired)


def test_a_change_that_the_kernel_has_refused_is_told_again_as_it_is_by_then():
    people = cluster()
    serve(people, 1.0)
    slots.take(people)
    population.steering_failed(people, 1.0)
    sizing.scale(people, 1, 1.01)
    population.tick(people, 1.2)
    assert only(slots.take(people)).workers == people.live == {1}
    population.steering_failed(people, 2.0)
    population.tick(people, population.deadline(people))
    assert only(slots.take(people)).workers == people.live


@pytest.mark.parametrize("weights", [{}, {0: 3.0}])
@pytest.mark.parametrize("canary", [None, 0.25])
def test_weights(weights, canary):
    people = cluster(balance="weighted", weights=weights)
    serve(people, 1.0)
    reloading.reload(people, 2.0, canary)
    serve(people, 3.0)
    told = only(slots.take(people))
    parts = {worker: told.weights.get(worker, 1.0) for worker in told.workers}
    if canary:
        new = sum(part for worker, part in parts.items() if worker > 2)
        assert new == pytest.approx(canary * sum(parts.values()))
    else:
        assert parts == {3: weights.get(0, 1.0), 4: 1.0}


def test_who_is_forgotten_is_not_asked_for():
    """After a fault a slot may name a worker that is no more."""
    people = cluster()
    serve(people, 1.0)
    slots.take(people)
    del people.members[1]
    assert only(slots.take(people)).workers == {2}


def test_no_worker_nobody_live():
    assert live([], "accepting", reloading=False, canary=False) == set()
    assert weigh(set(), {}, {}, None) == {}
    change = c.Live(frozenset())
    assert placed([], change) == [change]


def test_nobody_asks_for_it():
    for base in inspect.getmro(Population):
        if base is not object:
            source = inspect.getsource(inspect.getmodule(base))
            assert "_steer(" not in source and "Live(" not in source.replace("return Live(", "")
    assert recovery
