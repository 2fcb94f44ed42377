"""What the population does about a program or an address that makes no sense in a cluster."""

import pytest
from populationcase import cluster, of, spawned, until

from recluster.base.states import State
from recluster.options import Options
from recluster.population import (
    addresses,
    failing,
    healing,
    population,
    readiness,
    reloading,
    slots,
)
from recluster.population import commands as c
from recluster.population import state as p

# ---- R13, R14: what a program does that makes no sense in a cluster -----------------------------


def told(people, name):
    return of(slots.take(people), c.Notice, name)


def test_workers_that_listen_anew_together_are_told_of_once():
    people = cluster(3)
    for key in (1, 2, 3):
        assert not told(people, "restart_together")
        population.listening(people, key, "a:1", 10.0 + key / 10)
    assert len(told(people, "restart_together")) == 1


@pytest.mark.parametrize("times", [(10.0, 10.1, 12.0), (3.1, 3.2, 3.3)])
def test_not_those_that_do_so_by_and_by_nor_at_their_start(times):
    people = cluster(3)
    for key, time in zip((1, 2, 3), times, strict=True):
        population.listening(people, key, "a:1", time)
    assert not told(people, "restart_together")


def test_nor_in_a_reload():
    people = cluster(2)
    reloading.reload(people, 9.0)
    for key in (1, 2):
        addresses.deaf(people, key, "a:1", False, 10.0)
    assert not told(people, "restart_together")


def test_the_hint_is_for_who_gives_no_reason_while_others_serve():
    for error, status, hinted in (
        (None, 70, True),
        ("SyntaxError: x", 1, False),
        (None, -9, False),
    ):
        people = cluster()
        reloading.reload(people, 9.0)
        if error:
            failing.failed(people, 2, error)
        population.exited(people, 2, status, 10.0)
        (reload,) = told(people, "reload")
        assert ("a pid file?" in reload.event.why) == hinted


# ---- R12: sockets that were there before the workers ------------------------------------


def offered(*addresses):
    people = p.Population(Options.make({"workers": 2, "ready_when": "listening"}, {}), lambda: 0.5)
    people.offered = set(addresses)
    population.start(people, 0.0)
    population.listening(people, 1, "a:1", 3.0)
    return people


def refusals(commands):
    return [(one.address, one.on) for one in of(commands, c.Refuse)]


def test_who_connects_where_no_worker_listens_is_refused():
    people = offered("a:1", "b:2")
    assert refusals(until(people, 3.9)) == []
    commands = until(people, 4.1)
    assert refusals(commands) == [("b:2", True)]
    assert [one.event.details for one in of(commands, c.Notice, "unclaimed")] == [
        {"address": "b:2", "refused": True}
    ]
    assert people.unclaimed == {"b:2"}
    assert refusals(until(people, 100.0)) == []


def test_until_a_worker_listens_there_after_all():
    people = offered("b:2")
    until(people, 5.0)
    population.listening(people, 2, "b:2", 6.0)
    assert refusals(slots.take(people)) == [("b:2", False)]
    assert people.unclaimed == set()


def test_nobody_is_refused_before_the_first_is_ready():
    people = p.Population(Options.make({"workers": 1, "ready_when": "ready"}, {}), lambda: 0.5)
    people.offered = {"b:2"}
    population.start(people, 0.0)
    population.listening(people, 1, "a:1", 1.0)
    assert refusals(until(people, 30.0)) == []
    readiness.said_ready(people, 1, 31.0)
    assert refusals(until(people, 33.0)) == [("b:2", True)]


# ---- D3: another door -----------------------------------------------------------------------


@pytest.mark.parametrize("reload", [False, True])
def test_who_is_started_again_has_not_failed(reload):
    options = Options.make({"ready_when": "listening", "workers": 2}, {})
    people = cluster(2, give_up=1) if reload else p.Population(options, lambda: 0.5)
    if reload:
        reloading.reload(people, 10.0)
    else:
        population.start(people, 10.0)
    first, *_ = spawned(people)
    assert healing.is_booting(people, first)
    healing.start_again(people, first, 10.1)
    commands = slots.take(people)
    assert [one.worker for one in of(commands, c.Kill)] == [first]
    (second,) = [one.worker for one in of(commands, c.Spawn)]
    population.exited(people, first, -9, 10.2)
    population.gone(people, first, 10.2)
    until(people, 10.3)
    assert people.reloading is not None or not reload
    population.listening(people, second, "a:1", 11.0)
    assert people.members[second].state in (State.READY, State.SERVING)
    assert not healing.is_booting(people, second)
