"""Servers that go to the background: what counts, what is ended, and when."""

from recluster.options import Options
from recluster.population import background, closing, population, slots
from recluster.population import commands as c
from recluster.population import state as p
from recluster.population.background import STRAY_GRACE, WENT


def cluster(**given):
    people = p.Population(
        Options.make({"workers": 1, "ready_when": "listening", **given}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    return people


def of(people, kind):
    return [one for one in slots.take(people) if isinstance(one, kind)]


def spawned(people):
    return [one.worker for one in of(people, c.Spawn)]


def listens_and_leaves(people, worker, now):
    """As nginx: ready at its listen, and then the leader ends."""
    population.listening(people, worker, "a:1", now)
    population.exited(people, worker, 0, now + 0.01, left=True)


def test_it_counts_as_never_ready_until_it_is_given_up():
    people, now = cluster(give_up=4), 0.0
    worker, seen = 1, 0
    while not people.closing:
        seen += 1
        listens_and_leaves(people, worker, now)
        if people.closing:
            break
        now = people.slots[0].spawn_at
        assert now > 0.9 * seen  # it backs off
        slots.take(people)
        population.gone(people, worker, now)
        population.tick(people, now)
        (worker,) = spawned(people)
    assert seen == 4
    assert not people.ever_ready


def test_what_it_left_is_told_to_end_and_killed_until_it_is_gone():
    people = cluster()
    listens_and_leaves(people, 1, 0.0)
    (told,) = of(people, c.EndStrays)
    assert told == c.EndStrays(1, kill=False)
    for turn in (1, 2):
        population.tick(people, 0.02 + turn * STRAY_GRACE)
        assert c.EndStrays(1, kill=True) in slots.take(people)
    population.gone(people, 1, 5.0)
    slots.take(people)
    population.tick(people, 30.0)
    assert not of(people, c.EndStrays)


def test_a_shutdown_kills_what_is_left():
    people = cluster()
    listens_and_leaves(people, 1, 0.0)
    slots.take(people)
    closing.shutdown(people, 0.1)
    assert of(people, c.EndStrays) == [c.EndStrays(1, kill=True)]


def test_one_that_escaped_the_look_was_no_server_either():
    people = cluster(workers=2, give_up=3, boots=2)
    population.listening(people, 1, "a:1", 0.0)
    population.exited(people, 1, 0, 0.01, left=False)
    assert people.ever_ready
    listens_and_leaves(people, 2, 0.0)
    assert not people.ever_ready


def test_after_the_first_no_proof_is_needed():
    people = cluster()
    listens_and_leaves(people, 1, 0.0)
    population.gone(people, 1, 0.5)
    population.tick(people, 1.0)
    slots.take(people)
    (worker,) = [key for key in people.members if key != 1]
    population.listening(people, worker, "a:1", 1.1)
    population.exited(people, worker, 0, 1.2, left=False)
    (told,) = [one for one in of(people, c.Notice) if one.name == "exit"]
    assert told.event.error == WENT


def test_who_served_for_long_or_ends_badly_has_not():
    people = cluster()
    population.listening(people, 1, "a:1", 0.0)
    assert background.may_have_gone(people, 1, 0, 9.0)
    assert not background.may_have_gone(people, 1, 1, 9.0)
    assert not background.may_have_gone(people, 1, -15, 9.0)
    assert not background.may_have_gone(people, 1, 0, 11.0)


def test_a_daemon_that_listens_after_its_leader_ended_is_ended():
    people = cluster()
    population.exited(people, 1, 0, 0.1, left=False)
    slots.take(people)
    population.listening(people, 1, "a:1", 0.2)
    assert c.EndStrays(1, kill=False) in slots.take(people)
