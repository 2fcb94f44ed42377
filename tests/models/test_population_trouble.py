"""A reload in trouble, a shutdown that drags on: command by command.

The second half are stories for what a change might quietly take away: each was a mutant of
the pure layer that no test had noticed.
"""

import pytest

from recluster.base.states import State
from recluster.options import Options
from recluster.population import commands as c
from recluster.population import population as p
from recluster.population.backoff import Backoff
from recluster.population.draining import Facts


def cluster(workers=1, **given):
    """All serve on a:1 since 3.0: a boot takes 3 s here."""
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": workers, **given}, {}), lambda: 0.5
    )
    people.start(0.0)
    for key in list(people.members):
        people.listening(key, "a:1", 3.0)
    people.take()
    return people


def until(people, end):
    """Time passes, from deadline to deadline. Returns the commands."""
    commands = people.take()
    while (at := people.deadline()) is not None and at <= end:
        people.tick(at)
        commands += people.take()
    people.tick(end)
    return commands + people.take()


def of(commands, kind, name=None):
    return [one for one in commands if isinstance(one, kind) and (name is None or one.name == name)]


def spawned(people):
    return [one.worker for one in of(people.take(), c.Spawn)]


def serving(people):
    return [slot.serving.id if slot.serving else None for slot in people.slots.values()]


# ---- R2: ready_timeout is one worker's own ---------------------------------------------


def test_a_ready_worker_waits_for_its_siblings_without_limit():
    people = cluster(3, boots=1, ready_timeout=9)
    people.reload(10.0)
    now, ready = 10.0, []
    for _ in range(3):
        (key,) = spawned(people)
        ready.append(key)
        now += 8
        assert not of(until(people, now), c.Leave)
        people.listening(key, "a:1", now)
    assert serving(people) == ready


def test_who_gives_its_address_up_again_is_not_waited_for_without_limit():
    people = cluster(2, boots=2, ready_timeout=9)
    people.reload(10.0)
    first, _ = spawned(people)
    people.listening(first, "a:1", 11.0)
    people.deaf(first, "a:1", False, 15.0)
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
    people.reload(10.0)
    people.listening(2, "a:1", 13.0)  # 1 retires, and has an hour
    people.take()
    people.shutdown(20.0)
    assert not of(until(people, 39.9), c.Kill)
    assert {one.worker for one in of(until(people, 40.0), c.Kill)} == {1, 2}


def leaves_before_shutdown(**given):
    people = cluster(shutdown_timeout=20, **given)
    people.reload(10.0)
    people.listening(2, "a:1", 13.0)
    until(people, 14.5)
    for second in (14.5, 14.6):
        people.inspected(1, Facts(connections=0, catches_stop=True), second)
    assert people.members[1].state is State.STOPPING
    people.take()
    return people


def urged(people, end, facts):
    """Who gets the stop signal once more until then, if that is what is seen of it."""
    for one in of(until(people, end), c.Inspect):
        people.inspected(one.worker, facts, end)
    return [one.worker for one in of(people.take(), c.Leave)]


def test_the_stop_signal_is_repeated_when_shutdown_begins_half_way_and_on_demand():
    people, idle = leaves_before_shutdown(), Facts(connections=2)
    people.shutdown(20.0)
    assert urged(people, 20.0, idle) == [1]
    people.shutdown(21.0, again=True)
    assert [one.worker for one in of(people.take(), c.Leave)] == [1]
    assert urged(people, 29.9, idle) == []
    assert 1 in urged(people, 30.0, idle)
    assert urged(people, 39.9, idle) == []


def test_who_owes_an_answer_does_not_get_the_stop_signal_a_second_time():
    people, busy = leaves_before_shutdown(), Facts(connections=2, owing=1)
    people.shutdown(20.0)
    assert urged(people, 20.0, busy) == []
    assert 1 not in urged(people, 30.0, busy)
    assert 1 in [one.worker for one in of(until(people, 40.0), c.Kill)]


def test_what_a_shutdown_waits_for_is_told_after_2_seconds_and_every_10():
    people = cluster(shutdown_timeout=30)
    people.shutdown(100.0)
    told = []
    for tenth in range(1, 300):
        commands = until(people, 100 + tenth / 10)
        told += [(tenth / 10, one.event.left) for one in of(commands, c.Notice, "waiting")]
        if of(commands, c.Notice, "waiting"):
            assert of(commands, c.Inspect)  # first, so that what is told is how it is now
    assert told == [(2.0, 28.0), (12.0, 18.0), (22.0, 8.0)]


def test_a_quick_shutdown_tells_nothing():
    people = cluster()
    people.shutdown(100.0)
    people.exited(1, 0, 101.0)
    people.gone(1, 101.0)
    people.inspected(1, Facts(), 101.0)
    assert people.ended == 0
    assert not of(people.take(), c.Notice, "waiting")


# ---- R4: the cluster heals while a reload is under way --------------------------------------


def test_everything_crashed_and_a_reload_is_asked_the_respawns_go_on():
    people = cluster(4, boots=1)
    for key in (1, 2, 3, 4):
        people.exited(key, -9, 20.0)
    until(people, 20.0)
    respawns = [slot.incoming.id for slot in people.slots.values()]
    people.reload(21.0)
    assert not spawned(people)  # two boots side by side would be later than one
    for key in respawns:
        people.listening(key, "a:1", 23.0)
    assert serving(people) == respawns
    # Now that all serve, the new code comes as ever: one at a time, in one step.
    for _ in range(4):
        assert people.reloading
        (key,) = spawned(people)
        people.listening(key, "a:1", 26.0)
    assert not people.reloading
    assert {slot.serving.generation for slot in people.slots.values()} == {2}


def test_a_respawn_that_takes_too_long_is_not_waited_for():
    people = cluster(2, boots=1)
    for key in (1, 2):
        people.exited(key, -9, 20.0)
    until(people, 20.0)
    people.reload(21.0)  # the fix
    assert not of(until(people, 26.9), c.Spawn)
    new = [one.worker for one in of(until(people, 27.0), c.Spawn)]
    assert len(new) == 2  # nobody serves: both at once
    people.listening(new[1], "a:1", 30.0)
    assert serving(people) == [None, new[1]]
    people.listening(new[0], "a:1", 30.5)
    assert serving(people) == new
    assert not people.reloading
    stopping = [one for one in people.members.values() if one.state is State.STOPPING]
    assert len(stopping) == 2  # the respawns of before


def test_a_slot_whose_worker_dies_takes_its_ready_newcomer_at_once():
    people = cluster(2, boots=2)
    people.reload(10.0)
    new = spawned(people)
    people.listening(new[0], "a:1", 13.0)
    assert serving(people) == [1, 2]
    people.exited(1, -9, 14.0)
    assert serving(people) == [new[0], 2]
    assert people.reloading  # its sibling still boots
    people.listening(new[1], "a:1", 15.0)
    (reload,) = of(people.take(), c.Notice, "reload")
    assert reload.event.ok and serving(people) == new


def test_a_newcomer_gets_the_lanes_of_the_worker_that_dies_while_it_boots():
    people = cluster()
    people.reload(10.0)
    (new,) = spawned(people)
    people.exited(1, -9, 11.0)
    assert of(people.take(), c.Inherit) == [c.Inherit(new, 1)]


def test_the_only_worker_dies_while_the_new_code_hangs():
    people = cluster()
    people.reload(10.0)
    (hangs,) = spawned(people)
    people.exited(1, -9, 30.0)
    (spawn,) = of(until(people, 30.0), c.Spawn)  # what is on disk may be mended by now
    people.listening(spawn.worker, "a:1", 33.0)
    assert serving(people) == [spawn.worker]
    assert people.members[hangs].state is State.STOPPING
    assert not people.reloading


def test_reloads_faster_than_a_boot_do_not_keep_a_dark_cluster_dark():
    people = cluster()
    people.exited(1, -9, 20.0)
    until(people, 20.0)
    first = people.slots[0].incoming.id
    for second in range(21, 23):
        people.reload(float(second))
    people.listening(first, "a:1", 23.0)
    assert serving(people) == [first]


def test_code_with_a_wrong_port_does_not_take_a_dark_slot():
    people = cluster(2)
    people.exited(1, -9, 10.0)
    people.reload(10.0)
    new = [one.worker for one in of(people.take(), c.Spawn)]
    for worker in new:
        people.listening(worker, "wrong:2", 12.0)
    until(people, 15.0)
    assert serving(people) == [None, 2]
    commands = until(people, 10.0 + people.options.ready_timeout)
    assert serving(people) == [None, 2]
    assert [one.event.ok for one in of(commands, c.Notice, "reload")] == [False]


def test_nor_a_slot_that_is_new():
    people = cluster(2)
    people.scale(3, 10.0)
    [new] = [one.worker for one in of(people.take(), c.Spawn)]
    people.listening(new, "wrong:2", 12.0)
    until(people, 15.0)
    assert serving(people) == [1, 2, None]
    people.listening(new, "a:1", 16.0)
    assert serving(people) == [1, 2, new]


def test_a_sibling_that_fails_does_not_take_a_dark_slots_newcomer_with_it():
    people = cluster(2, boots=2)
    people.reload(10.0)
    new = spawned(people)
    people.exited(1, -9, 11.0)
    people.exited(new[1], 1, 12.0)
    assert not people.reloading
    assert people.slots[0].incoming.id == new[0]
    people.listening(new[0], "a:1", 13.0)
    assert serving(people) == [new[0], 2]


def test_a_reload_that_fails_after_it_healed_a_slot_says_so():
    people = cluster(2, boots=2)
    people.reload(10.0)
    new = spawned(people)
    people.exited(1, -9, 11.0)
    people.listening(new[0], "a:1", 13.0)
    people.exited(new[1], 1, 14.0)
    (reload,) = of(people.take(), c.Notice, "reload")
    assert "slots 0 have generation 2 already" in reload.event.why
    assert reload.event.changed


# ---- R5: rolled back ------------------------------------------------------------------------


def baked():
    people = cluster(2, boots=2, bake=15)
    people.reload(10.0)
    new = spawned(people)
    for key in new:
        people.listening(key, "a:1", 13.0)
    assert serving(people) == new
    people.take()
    return people, new


def test_a_roll_back_says_what_was_true():
    people, new = baked()
    people.exited(new[0], 1, 24.0)
    (reload,) = of(people.take(), c.Notice, "reload")
    assert "rolled back after 11.0 s: the new code served meanwhile" in reload.event.why
    assert reload.event.changed
    assert serving(people) == [1, 2]


def test_a_queue_that_rolled_back_code_does_not_take_is_not_held_for_ever():
    people, new = baked()
    people.exited(new[0], 1, 24.0)
    for tenth in range(70):
        people.inspected(new[1], Facts(queued=8), 24 + tenth / 10)
    commands = people.take()
    assert [one.worker for one in of(commands, c.Leave)] == [new[1]]
    assert new[1] in [one.worker for one in of(until(people, 45.0), c.Kill)]


# ---- mutants that nobody had noticed ----------------------------------------------------------


def retired(**given):
    """Worker 1 retires at 13.0."""
    people = cluster(**given)
    people.reload(10.0)
    people.listening(2, "a:1", 13.0)
    people.take()
    return people


def drains(people, facts, now):
    people.inspected(1, facts, now)
    return people.members[1].state


def test_half_open_handshakes_are_waited_for():
    people = retired()
    assert drains(people, Facts(half_open=1), 14.5) is State.SETTLING
    assert drains(people, Facts(half_open=1), 22.9) is State.SETTLING
    assert drains(people, Facts(half_open=1), 23.0) is State.DRAINING  # SYN-ACKs are repeated


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
        people.reload(second)
        (key,) = spawned(people)
        people.listening(key, "a:1", second)
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
    people.reload(10.0)
    people.listening(2, "a:1", 13.0)
    people.hung(2, 1, 14.0)
    if state is State.ABORTED:
        until(people, 19.0)
    assert people.members[2].state is state
    people.exited(2, -6, 19.5)
    assert serving(people) == [1]


def test_a_worker_that_lived_for_less_than_10_seconds_was_not_healthy():
    backoff = Backoff(1.0, 30.0)
    pauses = []
    for life in (9.9, 9.9, 9.9, 100.0):
        pauses.append(backoff.next_spawn(1000.0, 0.0, life, lambda: 0.5) - 1000.0)
    assert pauses == [0, 1, 2, 0]


def test_strays_of_the_dead_are_waited_for_5_seconds_at_the_end():
    people = cluster()
    people.exited(1, -9, 10.0)
    people.shutdown(10.0)
    until(people, 14.9)
    assert people.ended is None
    until(people, 15.0)
    people.inspected(1, Facts(), 15.0)
    assert people.ended == 0


def test_a_canary_gets_its_part():
    people = cluster(2, boots=2)
    people.reload(10.0, 0.25)
    for key in spawned(people):
        people.listening(key, "a:1", 13.0)
    live = of(people.take(), c.Live)[-1]
    assert live.workers == {1, 2, 3, 4}
    new = sum(live.weights.get(key, 1) for key in (3, 4))
    assert new / sum(live.weights.get(key, 1) for key in live.workers) == pytest.approx(0.25)


def test_who_takes_again_is_not_ended_for_having_hung():
    people = cluster(hang_timeout=5)
    people.hung(1, 1, 10.0)
    people.takes(1, 12.0)
    assert not of(until(people, 100.0), c.Abort)
    assert serving(people) == [1]


def test_a_worker_that_is_not_wanted_any_more_and_does_not_go_is_killed():
    people = cluster()
    people.reload(10.0)
    (new,) = spawned(people)
    people.rollback(11.0)
    assert [one.worker for one in of(people.take(), c.Leave)] == [new]
    assert [one.worker for one in of(until(people, 16.0), c.Kill)] == [new]


def test_strays_of_who_dies_in_the_shutdown_are_waited_for_5_seconds_too():
    people = cluster()
    people.shutdown(10.0)
    people.exited(1, 0, 12.0)
    until(people, 16.9)
    assert people.ended is None
    assert of(until(people, 17.0), c.Inspect)


def test_nobody_is_killed_by_a_shutdown_before_it_has_settled():
    people = cluster(drain_settle=5, shutdown_timeout=2)
    people.shutdown(10.0)
    assert not of(until(people, 14.9), c.Kill)
    assert of(until(people, 15.0), c.Kill)


# ---- R8, R9: who is asked when ------------------------------------------------------------------


def asked(people, facts, now):
    """Whether worker 1, retired at 13.0 and draining since 14.0, gets the stop signal then."""
    people.inspected(1, facts, 14.0)
    people.inspected(1, facts, now)
    return people.members[1].state is State.STOPPING


def test_who_has_spoken_is_left_alone_until_its_connections_are_closed():
    busy = Facts(connections=1, quiet=99, catches_stop=True)
    people = retired()
    people.spoke(1)
    assert not asked(people, busy, 3000.0)
    assert asked(people, Facts(connections=0, catches_stop=True), 3000.1)


def test_who_has_read_the_disconnect_may_act_upon_it():
    free = Facts(connections=0, heard=True)
    assert not asked(retired(), free, 14.9)
    assert asked(retired(), free, 15.0)


@pytest.mark.parametrize("spoken, when", [(False, 18.0), (True, None)])
def test_a_worker_that_never_listened_has_its_time(spoken, when):
    people = p.Population(Options.make({"workers": 1, "ready_when": "started"}, {}), lambda: 0.5)
    people.start(0.0)
    people.online(1, 0.0)
    if spoken:
        people.spoke(1)
    people.reload(10.0)
    people.online(2, 13.0)
    people.inspected(1, Facts(connections=0), 14.0)
    people.inspected(1, Facts(connections=0), 18.9)
    assert people.members[1].state is State.DRAINING
    people.inspected(1, Facts(connections=0), 19.0)
    assert (people.members[1].state is State.STOPPING) == (when is not None)
    people.shutdown(20.0)
    assert 1 in [one.worker for one in of(until(people, 35.0), c.Leave)] or not spoken


def test_of_node_nothing_is_believed_until_one_was_seen_to_finish():
    streams = Facts(connections=1, catches_stop=True, always_catches=True)
    assert not asked(retired(), streams, 3000.0)
    people = retired()
    people._dies_of_stop = False
    assert asked(people, streams, 15.0)


@pytest.mark.parametrize(
    "after, connections, learned", [(0.1, 1, True), (0.2, 1, False), (0.1, 0, False)]
)
def test_who_dies_at_once_of_the_signal_with_connections_open_did_not_finish(
    after, connections, learned
):
    people = retired()
    people.inspected(1, Facts(connections=connections, catches_stop=True), 14.0)
    people.inspected(1, Facts(connections=connections, catches_stop=True), 15.0)
    people.exited(1, 0, 15.0 + after)
    assert people._dies_of_stop is learned


def test_drain_quiet_holds_for_who_catches_the_signal_when_it_was_given():
    moves = Facts(connections=1, quiet=1.0, catches_stop=True)
    assert asked(retired(), moves, 14.5)
    assert not asked(retired(drain_quiet=5), moves, 3000.0)
    assert not asked(retired(drain_quiet="timeout"), Facts(connections=1, quiet=99), 3000.0)


# ---- R13, R14: what a program does that makes no sense in a cluster -----------------------------


def told(people, name):
    return of(people.take(), c.Notice, name)


def test_workers_that_listen_anew_together_are_told_of_once():
    people = cluster(3)
    for key in (1, 2, 3):
        assert not told(people, "restart_together")
        people.listening(key, "a:1", 10.0 + key / 10)
    assert len(told(people, "restart_together")) == 1


@pytest.mark.parametrize("times", [(10.0, 10.1, 12.0), (3.1, 3.2, 3.3)])
def test_not_those_that_do_so_by_and_by_nor_at_their_start(times):
    people = cluster(3)
    for key, time in zip((1, 2, 3), times, strict=True):
        people.listening(key, "a:1", time)
    assert not told(people, "restart_together")


def test_nor_in_a_reload():
    people = cluster(2)
    people.reload(9.0)
    for key in (1, 2):
        people.deaf(key, "a:1", False, 10.0)
    assert not told(people, "restart_together")


def test_the_hint_is_for_who_gives_no_reason_while_others_serve():
    for error, status, hinted in (
        (None, 70, True),
        ("SyntaxError: x", 1, False),
        (None, -9, False),
    ):
        people = cluster()
        people.reload(9.0)
        if error:
            people.failed(2, error)
        people.exited(2, status, 10.0)
        (reload,) = told(people, "reload")
        assert ("a pid file?" in reload.event.why) == hinted


# ---- R12: sockets that were there before the workers ------------------------------------


def offered(*addresses):
    people = p.Population(Options.make({"workers": 2, "ready_when": "listening"}, {}), lambda: 0.5)
    people.offered = set(addresses)
    people.start(0.0)
    people.listening(1, "a:1", 3.0)
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
    people.listening(2, "b:2", 6.0)
    assert refusals(people.take()) == [("b:2", False)]
    assert people.unclaimed == set()


def test_nobody_is_refused_before_the_first_is_ready():
    people = p.Population(Options.make({"workers": 1, "ready_when": "ready"}, {}), lambda: 0.5)
    people.offered = {"b:2"}
    people.start(0.0)
    people.listening(1, "a:1", 1.0)
    assert refusals(until(people, 30.0)) == []
    people.said_ready(1, 31.0)
    assert refusals(until(people, 33.0)) == [("b:2", True)]


# ---- D3: another door -----------------------------------------------------------------------


@pytest.mark.parametrize("reload", [False, True])
def test_who_is_started_again_has_not_failed(reload):
    options = Options.make({"ready_when": "listening", "workers": 2}, {})
    people = cluster(2, give_up=1) if reload else p.Population(options, lambda: 0.5)
    if reload:
        people.reload(10.0)
    else:
        people.start(10.0)
    first, *_ = spawned(people)
    assert people.is_booting(first)
    people.start_again(first, 10.1)
    commands = people.take()
    assert [one.worker for one in of(commands, c.Kill)] == [first]
    (second,) = [one.worker for one in of(commands, c.Spawn)]
    people.exited(first, -9, 10.2)
    people.gone(first, 10.2)
    until(people, 10.3)
    assert people.reloading is not None or not reload
    people.listening(second, "a:1", 11.0)
    assert people.members[second].state in (State.READY, State.SERVING)
    assert not people.is_booting(second)
