"""What is counted of notices, and the text for Prometheus."""

from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from recluster.base.states import State
from recluster.events import Exit, Reload
from recluster.events.view import Worker
from recluster.metrics.openmetrics import Family, Text, number
from recluster.metrics.scraping import HEAD_MOST, Refused, answer, asked
from recluster.metrics.tally import REASONS, Tally, how_of, reason_of, result_of

WORKER = Worker(1, 7, 1, 0)


def ended(was, code=None, signal=None, asked=False, overdue=False):
    return Exit(code, signal, 1.0, asked=asked, overdue=overdue, was=was, worker=WORKER)


def reloaded(ok, changed, seconds=1.0):
    return Reload(ok, changed, None, 2, seconds, {})


@pytest.mark.parametrize(
    ("event", "reason", "how"),
    [
        (ended(State.SERVING, signal="SIGKILL"), "signal", "SIGKILL"),
        (ended(State.SERVING, code=0), "ended", "code 0"),
        (ended(State.SERVING, code=3), "error", "code 3"),
        (ended(State.READY, code=3), "error", "code 3"),
        (ended(State.STARTING, code=1), "boot", "boot: code 1"),
        (ended(State.STOPPING, signal="SIGTERM", overdue=True), "boot", "boot: SIGTERM"),
        (ended(State.KILLED, signal="SIGKILL", overdue=True), "boot", "boot: SIGKILL"),
        (ended(State.STOPPING, code=0, asked=True), "asked", "asked"),
        (ended(State.DRAINING, signal="SIGSEGV", asked=True), "asked", "asked"),
        (ended(State.KILLED, signal="SIGKILL", asked=True), "killed", "SIGKILL"),
        (ended(State.ABORTED, signal="SIGABRT"), "hung", "hung"),
    ],
)
def test_why_a_worker_ended(event, reason, how):
    assert (reason_of(event), how_of(event)) == (reason, how)
    assert reason in REASONS


def test_how_a_reload_went():
    assert result_of(reloaded(True, True)) == "ok"
    assert result_of(reloaded(False, False)) == "failed"
    assert result_of(reloaded(False, True)) == "rolled_back"


def test_what_the_dead_have_used_adds_up():
    tally = Tally(lambda: 5.0)
    tally.spent = {1: (0.5, 3), 2: (0.25, None)}.__getitem__
    tally.notice(ended(State.SERVING, signal="SIGKILL"), 1)
    tally.notice(ended(State.SERVING, signal="SIGKILL"), 2)
    assert (tally.cpu, tally.accepted) == ({7: 0.75}, {7: 3})
    assert tally.exits == {(7, "signal"): 2} and tally.changes == 2


def test_the_histogram_of_reloads():
    tally = Tally(lambda: 5.0)
    for seconds in (0.05, 0.3, 1000.0):
        tally.notice(reloaded(True, True, seconds), 0)
    tally.notice(reloaded(False, False), 0)
    assert tally.within[:3] == [1, 1, 2] and tally.within[-1] == 2
    assert tally.reload_seconds == pytest.approx(1000.35) and tally.last_reload == (5.0, False)


def test_labels_are_escaped():
    family = Family("x", "gauge", 'a "quoted" \\ word\nand 5 %s more', "address")
    text = Text()
    path = 'unix:/a "b"\\n\n%dc\udcff'
    text.by(family, {path: 1.5})
    [found] = text_string_to_metric_families(text.end())
    [sample] = found.samples
    assert sample.labels == {"address": path.replace("\udcff", "?")} and sample.value == 1.5


def test_what_is_not_known_is_not_told():
    text = Text()
    text.by(Family("x", "gauge", ".", "slot"), {})
    assert text.end() == "# EOF\n"


def test_samples_come_in_the_order_of_their_labels():
    family = Family("x", "counter", ".", "slot, reason")
    for values in ({(10, "b"): 1, (2, "c"): 2.5, (2, "a"): 3}, {(2, "a"): 4, (10, "b"): 5}):
        text = Text()
        text.by(family, values)
        [found] = text_string_to_metric_families(text.end())
        told = [(int(one.labels["slot"]), one.labels["reason"]) for one in found.samples]
        assert told == sorted(values)
        assert [one.value for one in found.samples] == [values[key] for key in told]


def test_a_text_that_is_told_again_is_as_one_that_is_new():
    labelled, plain = Family("x", "counter", ".", "slot"), Family("y", "gauge", ".")
    timed = Family("z", "histogram", ".")

    def told(text, values, seconds):
        text.one(plain, -1)  # of one that came to nothing
        text.begin()
        text.by(labelled, values)
        text.one(plain, seconds)
        text.histogram(timed, {1.0: 1}, len(values), seconds)
        return text.end()

    again, values = Text(), Counter({1: 2})
    for key, more, seconds in [(1, 0, 1.5), (1, 3, 1.5), (2, 0, 1.5), (0, 7, 2.5), (0, 0, 2.5)]:
        values[key] += more  # the caller's own, which changes
        assert told(again, values, seconds) == told(Text(), dict(values), seconds)


def test_numbers():
    assert [number(one) for one in (0, True, 1 << 60, 0.1, 1e-7)] == [
        "0", "1", "1152921504606846976", "0.1", "1e-07",
    ]  # fmt: skip


# ---- requests ------------------------------------------------------------------------


def test_a_request_comes_in_pieces():
    whole = b"GET /metrics?a=b&c HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\naccept: b\r\n\r\n"
    for at in range(len(whole) - 1):
        assert asked(whole[:at]) is None
    found = asked(whole)
    assert (found.path, found.query, found.accept) == (
        "/metrics",
        {"a": "b", "c": ""},
        "text/plain,b",
    )
    assert not found.bare and asked(whole.replace(b"GET", b"HEAD")).bare


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\n\n", 400),
        (b"GET / SPDY/1\n\n", 400),
        (b"GET  /\n\n", 400),
        (b"DELETE / HTTP/1.1\n\n", 405),
        (b"x" * (HEAD_MOST + 1), 431),
        (b"GET / HTTP/1.1\n" + b"a: b\n" * HEAD_MOST + b"\n\n", 431),
    ],
)
def test_what_is_no_request(data, status):
    with pytest.raises(Refused) as caught:
        asked(data)
    assert caught.value.status == status
    assert answer(status, "x\n").startswith(b"HTTP/1.1 %d " % status)
