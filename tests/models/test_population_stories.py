"""The population in chosen stories: what each promise looks like from command to command."""

import pytest

from recluster.base.states import State
from recluster.options import Options
from recluster.population import addresses, closing, failing, population, reloading, sizing, slots
from recluster.population import commands as c
from recluster.population import state as p
from recluster.population.draining import Facts

ADDRESSES = ("a:1", "b:2")


def test_a_reload_that_fails_changes_nothing():
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 2, "boots": 2}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    for key in (1, 2):
        population.online(people, key, 0.1)
        population.listening(people, key, "a:1", 0.1)
    slots.take(people)
    reloading.reload(people, 1.0)
    assert {one.worker for one in slots.take(people) if isinstance(one, c.Spawn)} == {3, 4}
    population.listening(people, 3, "a:1", 1.2)
    failing.failed(people, 4, "SyntaxError: invalid syntax")
    population.exited(people, 4, 1, 1.3)
    commands = slots.take(people)
    assert not [one for one in commands if isinstance(one, c.Live)]
    (reload,) = (one for one in commands if isinstance(one, c.Notice) and one.name == "reload")
    assert not reload.event.ok
    assert "worker 1" in reload.event.why
    assert "SyntaxError" in reload.event.why
    assert {slot.serving.id for slot in people.slots.values()} == {1, 2}


@pytest.mark.parametrize("give_up", [0, 10])
def test_nothing_to_run_ends_a_first_start(give_up):
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 2, "give_up": give_up}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    population.online(people, 1, 0.1)
    failing.failed(people, 1, "No module named nope", nothing=True)
    population.exited(people, 1, 1, 0.1)
    (told,) = [
        one
        for one in slots.take(people)
        if isinstance(one, c.Notice) and one.name == "nothing_to_run"
    ]
    assert told.event.why == "No module named nope"
    population.gone(people, 1, 0.1)
    population.exited(people, 2, -15, 0.2)
    population.gone(people, 2, 0.2)
    for key in (1, 2):
        population.inspected(people, key, Facts(queued=0), 0.2)
    assert people.ended == 2


def test_nothing_to_run_is_a_verdict_once_one_was_ready():
    people = p.Population(Options.make({"ready_when": "listening", "workers": 1}, {}), lambda: 0.5)
    population.start(people, 0.0)
    population.listening(people, 1, "a:1", 0.1)
    reloading.reload(people, 1.0)
    failing.failed(people, 2, "No module named nope", nothing=True)
    population.exited(people, 2, 1, 1.1)
    assert not people.closing
    (reload,) = (
        one for one in slots.take(people) if isinstance(one, c.Notice) and one.name == "reload"
    )
    assert "No module named nope" in reload.event.why


def test_the_wrong_port_never_takes_over():
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 1, "ready_timeout": 9}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    population.listening(people, 1, "a:1", 0.1)
    reloading.reload(people, 1.0)
    population.listening(people, 2, "b:2", 1.1)
    population.tick(people, 5.0)
    assert people.slots[0].serving.id == 1
    population.tick(people, 10.1)
    (reload,) = (
        one for one in slots.take(people) if isinstance(one, c.Notice) and one.name == "reload"
    )
    assert "never listened on a:1 within 9 s" in reload.event.why


def test_an_address_that_went_is_told_after_a_grace():
    people = p.Population(Options.make({"ready_when": "listening", "workers": 1}, {}), lambda: 0.5)
    population.start(people, 0.0)
    for address in ("a:1", "b:2"):
        population.listening(people, 1, address, 0.1)
    reloading.reload(people, 1.0)
    population.listening(people, 2, "a:1", 1.1)
    assert people.reloading
    population.tick(people, population.deadline(people))
    (reload,) = (
        one for one in slots.take(people) if isinstance(one, c.Notice) and one.name == "reload"
    )
    assert reload.event.ok
    assert reload.event.went == ["b:2"]


def served(**given):
    """Two addresses, one worker each slot, all serving since 0.1."""
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 1, "hold": 5, **given}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    for key in list(people.members):
        for address in ADDRESSES:
            population.listening(people, key, address, 0.1)
    slots.take(people)
    return people


def did(people, kind):
    return [one for one in slots.take(people) if isinstance(one, kind)]


def test_a_worker_that_stops_listening_is_replaced_first():
    people = served()
    addresses.deaf(people, 1, "a:1", False, 3.0)
    assert population.deadline(people) == 3.0
    population.tick(people, 3.0)
    commands = slots.take(people)
    (spawn,) = (one for one in commands if isinstance(one, c.Spawn))
    assert (spawn.slot, spawn.heir_of) == (0, 1)
    assert [one.name for one in commands if isinstance(one, c.Notice)] == ["deaf"]
    assert people.slots[0].serving.id == 1
    population.listening(people, 2, "b:2", 3.1)
    assert people.slots[0].serving.id == 1  # the successor has to listen where it did
    population.listening(people, 2, "a:1", 3.2)
    assert people.slots[0].serving.id == 2
    assert people.members[1].state is State.SETTLING


def test_respawn_is_the_least_time_for_that_too():
    people = served(respawn=4)
    addresses.deaf(people, 1, "a:1", False, 2.0)
    assert population.deadline(people) == 4.0


def test_one_process_of_several_gets_a_grace_and_listens_again():
    people = served()
    addresses.deaf(people, 1, "a:1", True, 3.0)
    assert population.deadline(people) == 4.0
    population.listening(people, 1, "a:1", 3.5)
    population.tick(people, 4.0)
    assert not did(people, c.Spawn) and population.deadline(people) is None
    addresses.deaf(people, 1, "a:1", True, 5.0)
    population.tick(people, 6.0)
    assert did(people, c.Spawn)


def test_what_is_closed_while_it_starts_is_no_loss():
    """A port that a program opens to see whether it is free."""
    people = served(respawn=0)
    addresses.deaf(people, 1, "a:1", False, 0.5)  # it still has b:2
    assert population.deadline(people) is None
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 1, "respawn": 1}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    population.listening(people, 1, "probe:1", 0.1)  # that makes it ready
    addresses.deaf(people, 1, "probe:1", False, 0.2)
    population.listening(people, 1, "a:1", 0.3)
    population.tick(people, 2.0)
    assert len(people.members) == 1 and population.deadline(people) is None


def test_who_served_its_quota_and_ended_well_has_not_failed():
    """No growing pauses for a server that ends every few seconds."""
    people, now, key = served(), 0.1, 1
    for _ in range(10):
        now += 2.0
        population.exited(people, key, 0, now)
        assert population.deadline(people) == now
        population.tick(people, now)
        (spawn,) = did(people, c.Spawn)
        key = spawn.worker
        for address in ADDRESSES:
            population.listening(people, key, address, now)


def test_what_waits_in_the_lane_of_a_retired_deaf_worker_gets_a_relief():
    people = served()
    reloading.reload(people, 1.0)
    for address in ADDRESSES:
        population.listening(people, 2, address, 2.0)
    assert people.members[1].state is State.SETTLING
    slots.take(people)
    population.inspected(people, 1, Facts(queued=3, stranded=3), 2.1)
    (spawn,) = did(people, c.Spawn)
    assert spawn.heir_of == 1
    population.inspected(people, 1, Facts(queued=3, stranded=3), 2.2)  # one is on its way
    assert not did(people, c.Spawn)
    population.exited(people, spawn.worker, 1, 2.3)
    population.gone(people, spawn.worker, 2.3)
    population.inspected(people, 1, Facts(queued=3, stranded=3), 2.4)
    assert did(people, c.Spawn)
    population.exited(people, 1, 0, 2.5)
    population.gone(people, 1, 2.5)
    population.inspected(people, 1, Facts(queued=3), 2.5)  # it is still on its way
    assert not did(people, c.Spawn)
    population.exited(people, 4, 1, 2.6)
    population.gone(people, 4, 2.6)
    population.inspected(people, 4, Facts(), 2.6)
    assert c.Inspect(1) in slots.take(people)
    population.inspected(people, 1, Facts(queued=3), 2.6)
    assert did(people, c.Spawn)


def test_an_old_worker_kept_by_bake_that_gives_up_is_no_way_back():
    people = served(bake=60)
    reloading.reload(people, 1.0)
    for address in ADDRESSES:
        population.listening(people, 2, address, 2.0)
    addresses.deaf(people, 1, "a:1", False, 3.0)
    assert people.members[1].state is State.SETTLING
    population.exited(people, 2, 1, 4.0)
    assert people.slots[0].serving is None and people.slots[0].spawn_at is not None


# ---- hold --------------------------------------------------------------------------------


def holds(people):
    return [(one.address, one.on) for one in did(people, c.Hold)]


def test_37_an_address_without_any_worker_is_held_after_a_while():
    people = served(respawn=100)
    population.exited(people, 1, -9, 10.0)
    population.tick(people, 14.9)
    assert not holds(people)
    assert population.deadline(people) == 15.0
    population.tick(people, 15.0)
    assert holds(people) == [("a:1", True), ("b:2", True)]
    population.tick(people, 101.0)
    population.listening(people, 2, "a:1", 102.0)
    commands = slots.take(people)
    assert [one for one in commands if isinstance(one, c.Hold)] == [
        c.Hold("a:1", False), c.Hold("b:2", False)
    ]  # fmt: skip
    told = [
        one.event.details for one in commands if isinstance(one, c.Notice) and one.name == "hold"
    ]
    assert told == [{"address": "a:1", "held": False, "seconds": 92.0}]  # nobody serves b:2
    population.listening(people, 2, "b:2", 103.0)
    assert not holds(people) and population.deadline(people) is None


def test_37_nor_is_one_whose_only_worker_is_deaf_taken_for_alive():
    people = served(respawn=100)
    addresses.deaf(people, 1, "a:1", False, 10.0)
    population.tick(people, 15.0)
    assert holds(people) == [("a:1", True)]


def test_37_while_one_slot_serves_nothing_is_held():
    people = served(workers=2, respawn=100)
    population.exited(people, 1, -9, 10.0)
    addresses.deaf(people, 2, "a:1", True, 10.0)  # it has another lane there
    assert population.deadline(people) > 15.0
    population.tick(people, 50.0)
    assert not holds(people)


def test_37_an_address_that_only_a_draining_generation_has_is_not_held():
    people = served()
    reloading.reload(people, 1.0)
    population.listening(people, 2, "b:2", 1.1)
    population.tick(people, population.deadline(people))
    assert people.slots[0].serving.id == 2
    population.exited(people, 1, 0, 3.0)
    population.tick(people, 60.0)
    assert not holds(people)


def test_37_a_boot_that_takes_long_is_not_held():
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 1, "hold": 5}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    population.online(people, 1, 0.1)
    population.tick(people, 30.0)
    assert not holds(people)


@pytest.mark.parametrize("hold", [0, None])
def test_37_hold_can_be_switched_off(hold):
    people = served(respawn=100, hold=hold)
    population.exited(people, 1, -9, 10.0)
    population.tick(people, 60.0)
    assert not holds(people)


def test_37_a_shutdown_ends_it():
    people = served(respawn=100)
    population.exited(people, 1, -9, 10.0)
    closing.shutdown(people, 11.0)
    slots.take(people)
    population.tick(people, 60.0)
    assert not holds(people)


def test_boots_that_fail_are_forgotten():
    """A slot whose code is broken for a night must not keep each of its tries."""
    options = Options.make(
        {"ready_when": "listening", "workers": 1, "respawn": 1, "backoff": 0}, {}
    )
    people = p.Population(options, lambda: 0.5)
    population.start(people, 0.0)
    population.listening(people, 1, "a:1", 0.1)
    population.exited(people, 1, -9, 0.2)
    population.gone(people, 1, 0.2)
    slots.take(people)
    newest = 1
    for _ in range(50):
        population.tick(people, population.deadline(people))
        spawns = [one for one in slots.take(people) if isinstance(one, c.Spawn)]
        if spawns:
            ((newest, heir_of),) = [(one.worker, one.heir_of) for one in spawns]
            assert heir_of == 1  # its lane waits all the time
            population.exited(people, newest, 1, newest + 0.5)
            population.gone(people, newest, newest + 0.5)
            for one in slots.take(people):
                if isinstance(one, c.Inspect):
                    population.inspected(people, one.worker, Facts(), newest + 0.5)
        assert people.members.keys() <= {1, newest}
    assert newest > 20


def test_so_many_boot_at_a_time():
    """And when the last is ready all take over in one step."""
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 3, "boots": 1}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    for key in (1, 2, 3):
        population.listening(people, key, "a:1", 0.1)
    slots.take(people)
    reloading.reload(people, 1.0)
    for key, more in ((4, {5}), (5, {6}), (6, set())):
        slots.take(people)
        population.listening(people, key, "a:1", 1.1)
        found = slots.take(people)
        assert {one.worker for one in found if isinstance(one, c.Spawn)} == more
        live = [one.workers for one in found if isinstance(one, c.Live)]
        assert live == ([] if more else [frozenset({4, 5, 6})])


def test_those_that_take_leave_settle_one_after_another():
    """In a reload; when all ends there is nobody whose clients would feel it."""
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": 4, "boots": 4}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    for key in (1, 2, 3, 4):
        population.listening(people, key, "a:1", 0.1)
    reloading.reload(people, 1.0)
    for key in (5, 6, 7, 8):
        population.listening(people, key, "a:1", 2.0)
    settle = [people.members[key].settle_until for key in (1, 2, 3, 4)]
    assert len(set(settle)) == 4 and min(settle) >= 3.0 and max(settle) <= 4.0
    closing.shutdown(people, 10.0)
    assert {people.members[key].settle_until for key in (5, 6, 7, 8)} == {11.0}


# ---- one slot ------------------------------------------------------------------------


def three_that_serve(**more):
    given = {"ready_when": "listening", "workers": 3, "boots": 3, **more}
    people = p.Population(Options.make(given, {}), lambda: 0.5)
    population.start(people, 0.0)
    for key in (1, 2, 3):
        population.online(people, key, 0.1)
        population.listening(people, key, "a:1", 0.1)
    slots.take(people)
    return people


def spawned(commands):
    return [(one.worker, one.slot) for one in commands if isinstance(one, c.Spawn)]


def test_a_restarted_worker_serves_until_its_successor_does():
    people = three_that_serve()
    assert sizing.restart(people, 1, 20.0) is None
    commands = slots.take(people)
    assert spawned(commands) == [(4, 1)]
    assert not [one for one in commands if isinstance(one, (c.Live, c.Retired))]
    population.listening(people, 4, "a:1", 20.5)
    commands = slots.take(people)
    (live,) = [one for one in commands if isinstance(one, c.Live)]
    (retired,) = [one for one in commands if isinstance(one, c.Retired)]
    assert live.workers == {1, 4, 3} and retired.workers == (2,)
    assert people.slots[1].restarts == 0


def test_a_successor_that_fails_leaves_the_restarted_worker_where_it_is():
    people = three_that_serve()
    sizing.restart(people, 1, 20.0)
    population.exited(people, 4, 1, 20.1)
    assert people.slots[1].serving.id == 2
    assert people.slots[1].last_error[1].startswith("exited with code 1")
    assert people.slots[1].spawn_at is not None  # it is tried again


def test_two_restarts_are_one():
    people = three_that_serve()
    assert sizing.restart(people, 1, 20.0) is None and sizing.restart(people, 1, 20.1) is None
    assert spawned(slots.take(people)) == [(4, 1)]


def test_a_drained_slot_is_passed_over_by_reload_respawn_and_scale():
    people = three_that_serve()
    assert sizing.drain(people, 1, 20.0) is None
    commands = slots.take(people)
    assert next(one for one in commands if isinstance(one, c.Live)).workers == {1, 3}
    assert next(one for one in commands if isinstance(one, c.Retired)).workers == (2,)
    population.exited(people, 2, 0, 21.0)
    population.gone(people, 2, 21.0)
    reloading.reload(people, 22.0)
    assert [slot for _, slot in spawned(slots.take(people))] == [0, 2]
    for key in (4, 5):
        population.listening(people, key, "a:1", 22.5)
    assert people.reloading is None and people.generation == 2
    assert sizing.scale(people, 4, 23.0) is None
    assert [slot for _, slot in spawned(slots.take(people))] == [3]
    population.tick(people, 500.0)
    assert spawned(slots.take(people)) == []
    assert sizing.resume(people, 1, 501.0) is None
    assert [slot for _, slot in spawned(slots.take(people))] == [1]


def test_a_drained_slot_that_is_scaled_away_comes_back_as_any_other():
    people = three_that_serve()
    sizing.drain(people, 2, 20.0)
    sizing.scale(people, 2, 21.0)
    assert sizing.resume(people, 2, 22.0) == "it is not drained"
    slots.take(people)
    sizing.scale(people, 3, 23.0)
    assert [slot for _, slot in spawned(slots.take(people))] == [2]


def test_what_would_leave_nobody_is_refused():
    people = three_that_serve(balance="weighted", weights={0: 0, 1: 0})
    assert "nobody would get a connection" in sizing.drain(people, 2, 20.0)
    people = three_that_serve()
    sizing.drain(people, 0, 20.0)
    sizing.drain(people, 1, 20.0)
    assert sizing.drain(people, 2, 20.0) == "no other slot serves"
    assert "all that would be left are drained" in sizing.scale(people, 2, 20.0)


def test_a_slot_that_is_drained_beside_a_canary_stays_empty_when_that_goes():
    people = three_that_serve()
    reloading.reload(people, 20.0, 0.5)
    for key in [key for key, _ in spawned(slots.take(people))]:
        population.listening(people, key, "a:1", 20.5)
    assert people.baking
    sizing.drain(people, 0, 21.0)
    assert people.baking and people.slots[1].previous
    assert people.slots[0].previous is None and people.slots[0].serving is None
    assert reloading.rollback(people, 22.0) is None
    assert people.slots[0].serving is None and people.slots[1].serving.generation == 1


def test_a_queue_that_does_not_empty_is_waited_for_until_the_timeout_and_no_longer():
    people = three_that_serve(timeout=0.0, drain_settle=1.0)
    sizing.scale(people, 2, 20.0)
    member = people.members[3]
    population.inspected(people, 3, Facts(queued=1), 20.5)
    assert member.settle_until == 21.0 == member.deadline
    slots.take(people)
    population.tick(people, 21.0)
    assert c.Kill(3) in slots.take(people)
