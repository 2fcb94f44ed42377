"""Who is live is a function of how things are, told once a turn and in the right place."""

import inspect

import pytest

from recluster.options import Options
from recluster.population import commands as c
from recluster.population import recovery
from recluster.population.live import live, placed, weigh
from recluster.population.recovery import Recovering


def cluster(workers=2, **options):
    people = Recovering(
        Options.make({"workers": workers, "boots": workers, **options}, {}), lambda: 0.5
    )
    people.start(0.0)
    return people


def serve(people, now):
    for worker, member in list(people.members.items()):
        if member.state.value == "starting":
            people.online(worker, now)
            people.listening(worker, "a:1", now)
            people.ready(worker, now)


def only(commands):
    (found,) = [one for one in commands if isinstance(one, c.Live)]
    return found


def before(commands, first, second):
    kinds = [type(one) for one in commands]
    return max(i for i, k in enumerate(kinds) if k is first) < kinds.index(second)


def test_a_worker_that_boots_is_spawned_before_it_is_live():
    commands = cluster().take()
    assert only(commands).workers == {1, 2}  # nobody serves: clients wait for them
    assert before(commands, c.Spawn, c.Live)


def test_nothing_is_told_twice():
    people = cluster()
    people.take()
    serve(people, 1.0)
    people.take()
    people.tick(1.1)
    assert not [one for one in people.take() if isinstance(one, c.Live)]


def test_a_cutover_is_one_change_before_anything_that_looks_at_the_old():
    people = cluster()
    serve(people, 1.0)
    people.take()
    people.reload(2.0)
    serve(people, 3.0)
    commands = people.take()
    assert only(commands).workers == {3, 4}
    assert before(commands, c.Live, c.Retired)


def test_at_a_shutdown_the_lanes_close_first():
    people = cluster()
    serve(people, 1.0)
    people.take()
    people.shutdown(2.0)
    commands = people.take()
    assert only(commands).workers == set()
    assert before(commands, c.CloseLanes, c.Live)
    assert before(commands, c.Live, c.Retired)


def test_a_change_that_the_kernel_has_refused_is_told_again_as_it_is_by_then():
    people = cluster()
    serve(people, 1.0)
    people.take()
    people.steering_failed(1.0)
    people.scale(1, 1.01)
    people.tick(1.2)
    assert only(people.take()).workers == people._live == {1}
    people.steering_failed(2.0)
    people.tick(people.deadline())
    assert only(people.take()).workers == people._live


@pytest.mark.parametrize("weights", [{}, {0: 3.0}])
@pytest.mark.parametrize("canary", [None, 0.25])
def test_weights(weights, canary):
    people = cluster(balance="weighted", weights=weights)
    serve(people, 1.0)
    people.reload(2.0, canary)
    serve(people, 3.0)
    told = only(people.take())
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
    people.take()
    del people.members[1]
    assert only(people.take()).workers == {2}


def test_no_worker_nobody_live():
    assert live([], "accepting", reloading=False, canary=False) == set()
    assert weigh(set(), {}, {}, None) == {}
    change = c.Live(frozenset())
    assert placed([], change) == [change]


def test_nobody_asks_for_it():
    for base in inspect.getmro(Recovering):
        if base is not object:
            source = inspect.getsource(inspect.getmodule(base))
            assert "_steer(" not in source and "Live(" not in source.replace("return Live(", "")
    assert recovery
