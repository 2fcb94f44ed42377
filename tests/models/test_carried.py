"""A population that is handed on: written as JSON, read by another, and the same again."""

import json
from types import SimpleNamespace

import pytest

from recluster import _engine
from recluster.base.states import State
from recluster.master import heritage
from recluster.metrics.tally import Tally
from recluster.options import Options
from recluster.population import carried, population, reloading, sizing, slots
from recluster.population.commands import Live, Refuse
from recluster.population.state import Population

ADDRESS = "127.0.0.1:80"


def made(**options):
    return Population(Options.make({"workers": 2, "ready_when": "listening", **options}), lambda: 0)


def started(**options):
    people = made(**options)
    population.start(people, 1.0)
    slots.take(people)
    for worker in (1, 2):
        population.online(people, worker, 2.0)
        population.listening(people, worker, ADDRESS, 3.0)
    slots.take(people)
    return people


def again(people, **options):
    other = made(**options)
    carried.resume(other, json.loads(json.dumps(carried.carried(people))))
    return other


def test_what_was_written_is_read_and_written_alike():
    people = started()
    people.weights = {0: 2.0}
    people.slots[1].last_error = (2.5, "exited")
    people.shared = {(ADDRESS, 2, False)}
    assert carried.unrest(people) is None
    other = again(people)
    assert carried.carried(other) == carried.carried(people)
    assert other.members[1] is other.slots[0].serving
    assert other.slots[1].last_error == (2.5, "exited")


def test_the_first_thing_that_the_next_one_does_is_to_say_who_is_live():
    (live,) = slots.take(again(started()))
    assert isinstance(live, Live) and live.workers == {1, 2}


def test_the_next_one_goes_on_numbering():
    other = again(started())
    slots.take(other)
    number = reloading.reload(other, 5.0)
    assert number == 1 and other.reloading.generation == 2
    assert min(other.members.keys() - {1, 2}) == 3


def test_a_worker_that_dies_is_replaced_by_the_next_one():
    other = again(started())
    slots.take(other)
    population.exited(other, 1, -9, 5.0)
    assert other.slots[0].spawn_at is not None


def test_who_hung_is_to_be_found_out_anew():
    people = started(hang_timeout=5)
    population.hung(people, 1, 3, 4.0)
    slots.take(people)
    member = again(people, hang_timeout=5).members[1]
    assert (member.hung_since, member.deadline, member.state) == (None, None, State.SERVING)


def test_what_nobody_has_claimed_is_refused_by_the_next_one_too():
    people = started()
    people.unclaimed = {"127.0.0.1:81"}
    assert Refuse("127.0.0.1:81", True) in slots.take(again(people))


def test_what_is_under_way_is_named():
    people = started()
    assert carried.unrest(people) is None
    reloading.reload(people, 4.0)
    assert carried.unrest(people) == "a reload is under way"
    fresh = made()
    population.start(fresh, 1.0)
    assert carried.unrest(fresh) == "slot 0 has no worker that serves"
    leaving = started()
    population.said_disconnect(leaving, 1, 4.0)
    assert "slot 0" in carried.unrest(leaving)
    scaled = started()
    sizing.scale(scaled, 1, 4.0)
    slots.take(scaled)
    assert carried.unrest(scaled) == "a worker ends"


def test_something_that_was_just_decided_is_carried_out_first():
    people = started()
    sizing.weigh(people, {0: 2.0})
    assert carried.unrest(people) is None
    people.do(Refuse(ADDRESS, True))
    assert carried.unrest(people) == "something has just happened"


@pytest.mark.parametrize("where", ["population", "members", "slots"])
@pytest.mark.parametrize("how", ["more", "less"])
def test_another_form_is_not_read(where, how):
    found = carried.carried(started())
    one = found if where == "population" else found[where][0]
    if how == "more":
        one["odd"] = 1
    else:
        del one[sorted(one)[0]]
    with pytest.raises(carried.Unknown):
        carried.resume(made(), found)


# ---- the whole -----------------------------------------------------------------------------


def test_a_heritage_of_another_form_is_not_read():
    for found in ({}, {"format": 0}, {"format": heritage.FORMAT}, []):
        fd = heritage.put(found)
        with pytest.raises(carried.Unknown):
            heritage.read(fd)


def test_a_heritage_is_read_as_it_was_put():
    found = {**dict.fromkeys(heritage.PARTS, "x" * 100_000), "format": heritage.FORMAT}
    fd = heritage.put(found)
    assert heritage.read(fd) == heritage.read(fd) == found


def test_a_tally_is_the_same_again():
    tally = Tally()
    tally.starts[0] += 2
    tally.exits[0, "signal"] += 1
    tally.last_exit[0] = 1.5, "SIGKILL"
    tally.reloads["ok"] += 3
    tally.last_reload = 2.5, True
    tally.cpu[1] = 0.5
    other = Tally()
    other.resume(json.loads(json.dumps(tally.carried())))
    assert other.carried() == tally.carried()
    assert other.reloads["ok"] == 3 and other.exits[0, "signal"] == 1


# ---- the engine's part ---------------------------------------------------------------------


@pytest.fixture
def text():
    engine = _engine.Engine()
    yield engine.carried()
    engine.close()


def test_an_engine_reads_what_an_engine_has_written(text):
    assert _engine.resumable(text) is None


@pytest.mark.parametrize(
    ("old", "new", "missed"),
    [
        ("format=2", "format=3", "the format"),
        ("opens=", "opens=00", "the format"),
        ("engine ", "motor ", "a record that is known"),
        ("guard=", "warden=", "guard"),
        ("guard=0", "guard=x", "guard"),
        ("guard=0", "guard=99999999999999999999", "guard"),
        ("\n", "", "the end of a record"),
        ("\n", " more=1\n", "the end of a record"),
        ("\n", "\nlane fd=3", "worker"),
    ],
)
def test_an_engine_says_what_it_misses(text, old, new, missed):
    assert old in text
    assert _engine.resumable(text.replace(old, new, 1)) == missed


def test_an_engine_reads_no_text_that_is_none(text):
    assert _engine.resumable("") == "the format"
    assert _engine.resumable("\0\xff") is not None
    for end in range(len(text)):
        assert _engine.resumable(text[:end]) is not None


def test_an_engine_refuses_arrays_that_are_not_whole(text):
    group = "group key=00 zero= zero_index=-1 speaks=0 blocks=0 flow_lanes=-1 flows=-1 unsure=0"
    group += " guests= asides= undelivered=\n"
    assert _engine.resumable(text + group) == "addresses"
    assert _engine.resumable(text + text) == "the format"


def test_options_that_differ_are_named():
    def cluster(**given):
        settings = SimpleNamespace(filed={}, target=SimpleNamespace(kind="file", words=("a",)))
        return SimpleNamespace(
            options=Options.make(given), revision=SimpleNamespace(settings=settings)
        )

    left = {"options": heritage.options_of(cluster(workers=2))}
    with pytest.raises(carried.Unknown, match="workers changed since the last reload"):
        heritage.check(cluster(workers=3), left)
