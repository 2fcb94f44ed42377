"""Ready means that a connection was taken (`ready_when` accepting)."""

from recluster.base.states import State
from recluster.options import Options
from recluster.population import commands as c
from recluster.population import population, readiness, reloading, sizing, slots
from recluster.population import state as p
from recluster.population.readiness import ASK_EVERY

OLD, NEW = 1, 2


def cluster(workers=1, **given):
    options = Options.make({"workers": workers, "boots": workers, **given}, {})
    people = p.Population(options, lambda: 0.5)
    population.start(people, 0.0)
    return people


def lives(people):
    """Those that get new connections, by the last command that says so."""
    return [command.workers for command in slots.take(people) if isinstance(command, c.Live)][-1]


def serving(**given):
    people = cluster(**given)
    population.listening(people, OLD, "a:1", 0.1, proving=True)
    readiness.accepting(people, OLD, 0.2)
    assert people.members[OLD].state is State.SERVING
    slots.take(people)
    return people


def test_to_listen_is_not_enough():
    people = serving()
    reloading.reload(people, 1.0)
    population.listening(people, NEW, "a:1", 1.1, proving=True)
    population.tick(people, 30.0)
    assert people.members[NEW].state is State.STARTING
    readiness.accepting(people, NEW, 31.0)
    assert people.members[NEW].state is State.SERVING


def test_nor_is_it_where_a_first_address_was_proved():
    """A control socket comes first, the port whose children boot later."""
    people = serving()
    reloading.reload(people, 1.0)
    population.listening(people, NEW, "unix:/ctl", 1.1)
    readiness.accepting(people, NEW, 1.1)
    assert people.members[NEW].state is State.READY
    population.listening(people, NEW, "a:1", 1.2, proving=True)
    population.tick(people, 10.0)
    assert people.members[NEW].state is State.READY
    readiness.accepting(people, NEW, 11.0)
    assert people.members[NEW].state is State.SERVING


def test_the_verdict_says_that_it_listened():
    people = serving(ready_timeout=9)
    reloading.reload(people, 1.0)
    population.listening(people, NEW, "a:1", 1.1, proving=True)
    population.tick(people, 10.1)
    (verdict,) = [
        command.event.details for command in slots.take(people)
        if isinstance(command, c.Notice) and command.name == "reload"
    ]  # fmt: skip
    assert not verdict["ok"]
    assert "took no connection on a:1 within 9 s" in verdict["why"]


def test_who_boots_is_waited_for_by_clients_only_where_nobody_serves():
    """A connection waits in its queue, as it would with the server alone; not where another
    would take it at once."""
    people = cluster(workers=2)
    assert lives(people) == {1, 2}
    for worker in (1, 2):
        population.listening(people, worker, "a:1", 0.1, proving=True)
    readiness.accepting(people, 1, 0.5)
    assert lives(people) == {1}
    readiness.accepting(people, 2, 0.7)
    assert lives(people) == {1, 2}


# ---- a deploy that dies of serving ---------------------------------------------------------


def failing_notices(people):
    return [
        command.event.details for command in slots.take(people)
        if isinstance(command, c.Notice) and command.name == "failing"
    ]  # fmt: skip


def serves_and_dies(people, index, now, lives=3.0, status=-11):
    """The next worker of the slot is ready at once, and dies; the time of its successor."""
    slot = people.slots[index]
    worker = slot.incoming.id
    population.listening(people, worker, "a:1", now)
    assert people.members[worker].state is State.SERVING
    population.exited(people, worker, status, now + lives)
    population.gone(people, worker, now + lives)
    at = slot.spawn_at
    population.tick(people, at)
    return at


def test_a_generation_that_dies_of_serving_in_every_slot_is_told_of_once():
    people = cluster(workers=2, ready_when="listening")
    at, told = [0.1, 0.1], []
    for _ in range(4):
        for index in range(2):
            at[index] = serves_and_dies(people, index, at[index])
            told += failing_notices(people)
    assert len(told) == 1
    assert told[0]["generation"] == 1
    assert "was ended by signal 11" in told[0]["why"]


def test_pauses_grow_meanwhile():
    people = cluster(workers=1, ready_when="listening", respawn=1)
    now, pauses = 0.1, []
    for _ in range(5):
        ended = now + 3.0
        now = serves_and_dies(people, 0, now)
        pauses.append(round(now - ended, 6))
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0]


def test_one_slot_alone_or_one_that_takes_leave_or_lives_is_no_failed_deploy():
    people = cluster(workers=2, ready_when="listening")
    population.listening(people, people.slots[0].incoming.id, "a:1", 0.1)
    now = 0.1
    for _ in range(5):
        now = serves_and_dies(people, 1, now)
    assert not failing_notices(people)
    people = cluster(workers=1, ready_when="listening")
    now = 0.1
    for lives, status in [(3.0, 0), (3.0, 0), (3.0, -11), (30.0, -11), (3.0, -11)]:
        now = serves_and_dies(people, 0, now, lives, status)
    assert not failing_notices(people)


def test_to_wait_for_siblings_is_no_life():
    """What was ready for a minute, and dies a second after the cutover, has not lived."""
    people = serving(ready_when="listening", respawn=0)
    people.slots[0].backoff.delay = 4.0
    sizing.scale(people, 2, 1.0)
    population.listening(people, 2, "a:1", 1.1)
    assert len(people.slots) == 2 and people.slots[1].serving
    reloading.reload(people, 10.0)
    population.listening(people, 3, "a:1", 11.0)
    population.listening(people, 4, "a:1", 90.0)
    population.exited(people, 3, -11, 91.0)
    assert people.slots[0].spawn_at == 95.0


def test_who_is_told_that_it_is_ready_finds_it_steered_to():
    people = cluster()
    population.listening(people, 1, "a:1", 0.1, proving=True)
    slots.take(people)
    readiness.accepting(people, 1, 0.2)
    told = slots.take(people)
    ready = [getattr(one, "name", None) for one in told].index("ready")
    assert 1 in people.live and not any(isinstance(one, c.Live) for one in told[ready:])


# ---- ready_url ------------------------------------------------------------------------------


def asked(people):
    return [command.worker for command in slots.take(people) if isinstance(command, c.Ask)]


def test_who_refuses_is_asked_again_and_its_last_word_is_the_verdict():
    people = cluster(ready_url="/healthz", ready_timeout=9)
    population.listening(people, OLD, "a:1", 0.1, proving=True)
    readiness.accepting(people, OLD, 0.2)
    assert asked(people) == [OLD] and people.members[OLD].state is State.STARTING
    readiness.answered(people, OLD, "503 No: no database", 0.3)
    assert population.deadline(people) == 0.3 + ASK_EVERY
    population.tick(people, population.deadline(people))
    assert asked(people) == [OLD]
    readiness.answered(people, OLD, None, 0.6)
    assert people.members[OLD].state is State.SERVING
    reloading.reload(people, 1.0)
    population.listening(people, NEW, "a:1", 1.1, proving=True)
    readiness.accepting(people, NEW, 1.2)
    readiness.answered(people, NEW, "503 No: no database", 1.3)
    readiness.answered(people, OLD, "late", 1.3)
    population.tick(people, 1.6)
    population.tick(people, 10.5)  # it has not answered
    (verdict,) = [
        command.event.details for command in slots.take(people)
        if isinstance(command, c.Notice) and command.name == "reload"
    ]  # fmt: skip
    assert "was not ready within 9 s: /healthz was answered 503 No: no database" in verdict["why"]
    readiness.answered(people, NEW, None, 10.6)
    assert people.members[NEW].state is State.STOPPING
