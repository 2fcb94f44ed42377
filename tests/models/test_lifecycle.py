"""The table of lifecycle.py, exhaustively: every state x event, and what must hold of it."""

from itertools import product

import pytest

from recluster.base.states import State
from recluster.population.lifecycle import ENDED, RETIRED, TABLE, Act, Event, step

PAIRS = list(product(State, Event))


def test_the_table_has_what_does_something():
    for (state, event), (after, act) in TABLE.items():
        assert (after, act) != (state, Act.NONE), (state, event)


def test_every_state_hears_what_ends_it():
    """By product: nobody is forgotten by omission. Who lives can be killed and can exit, and
    whoever waits for something has a way on when it comes, and one when it does not."""
    waits = {
        State.STARTING: {Event.READY, Event.OVERDUE, Event.RETIRE},
        State.READY: {Event.PROMOTE, Event.OVERDUE, Event.RETIRE},
        State.SERVING: {Event.RETIRE, Event.DEMOTE, Event.HANG},
        State.SETTLING: {Event.SETTLED, Event.OVERDUE, Event.HURRY},
        State.DRAINING: {Event.FINISHED, Event.OVERDUE, Event.HURRY},
        State.STOPPING: {Event.OVERDUE},
        State.ABORTED: {Event.OVERDUE},
        State.KILLED: set(),
        State.DEAD: {Event.GONE},
        State.GONE: set(),
    }
    for state, event in PAIRS:
        ends = event in (Event.KILL, Event.EXIT) and state not in ENDED
        assert ((state, event) in TABLE) == (event in waits[state] or ends), (state, event)


@pytest.mark.parametrize("event", Event)
def test_the_end_is_final(event):
    assert step(State.GONE, event) == (State.GONE, Act.NONE)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_a_retired_worker_never_serves_again(state, event):
    after, _ = step(state, event)
    if state in RETIRED | ENDED:
        assert after in RETIRED | ENDED


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_only_a_ready_worker_becomes_live(state, event):
    after, _ = step(state, event)
    if after is State.SERVING and state is not State.SERVING:
        assert (state, event) == (State.READY, Event.PROMOTE)


@pytest.mark.parametrize("state", State)
def test_exit_ends_every_living_state(state):
    after, act = step(state, Event.EXIT)
    assert after in ENDED
    assert act is Act.NONE


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_nothing_is_done_to_the_dead(state, event):
    """A pid of theirs may belong to somebody else."""
    if state in ENDED:
        assert step(state, event)[1] is Act.NONE


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED])
def test_kill_kills(state):
    assert step(state, Event.KILL) == (State.KILLED, Act.KILL)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_acts_belong_to_their_transitions(state, event):
    after, act = step(state, event)
    expected = {
        State.SETTLING: Act.SETTLE,
        State.DRAINING: Act.DRAIN,
        State.STOPPING: Act.LEAVE,
        State.ABORTED: Act.ABORT,
        State.KILLED: Act.KILL,
    }
    if after is not state and after in expected:
        assert act is expected[after]
    elif event is not Event.KILL:
        assert act is Act.NONE


def test_every_state_is_reached_from_the_first():
    reached, todo = {State.STARTING}, [State.STARTING]
    while todo:
        state = todo.pop()
        for event in Event:
            after, _ = step(state, event)
            if after not in reached:
                reached.add(after)
                todo.append(after)
    assert reached == set(State)
