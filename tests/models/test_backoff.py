"""The pauses between a slot's spawns."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recluster.population.backoff import JITTER, LEAST_HEALTHY_LIFE, Backoff


def middle():
    return 0.5


def crash_loop(backoff, times, life=0.1, ready_for=None, random=middle):
    """Pauses after each of so many short lives."""
    now, pauses = 0.0, []
    for _ in range(times):
        born, now = now, now + life
        after = backoff.next_spawn(now, born, ready_for, random)
        pauses.append(after - now)
        now = after
    return pauses


def test_a_series_doubles_up_to_the_ceiling():
    assert crash_loop(Backoff(1.0, 30.0), 8, life=0.0) == [1, 1, 2, 4, 8, 16, 30, 30]


def test_a_worker_that_lived_longer_than_respawn_is_replaced_at_once():
    backoff = Backoff(1.0, 30.0)
    assert backoff.next_spawn(100.0, 98.0, 1.9, middle) == 100.0


def test_respawn_is_the_least_time_between_two_spawns():
    assert Backoff(5.0, 30.0).next_spawn(101.0, 100.0, None, middle) == 105.0


@pytest.mark.parametrize("ceiling", [None, 0, 0.0])
def test_no_ceiling_no_growth(ceiling):
    assert crash_loop(Backoff(1.0, ceiling), 6, life=0.0) == [1.0] * 6


def test_a_healthy_life_ends_the_series():
    backoff = Backoff(1.0, 30.0)
    crash_loop(backoff, 6)
    long = max(LEAST_HEALTHY_LIFE, 2 * backoff.delay)
    assert backoff.next_spawn(1000.0, 900.0, long, middle) == 1000.0
    crash_loop(backoff, 6)
    assert backoff.next_spawn(1000.0, 900.0, 2 * backoff.delay - 0.1, middle) > 1000.0


@settings(deadline=None)  # the machine's load is not the backoff's
@given(st.floats(0, 1, exclude_max=True), st.floats(0.1, 10), st.floats(0.1, 100))
def test_growth_survives_the_jitter(chance, floor, ceiling):
    backoff = Backoff(floor, ceiling)
    pauses = crash_loop(backoff, 12, life=0.0, random=lambda: chance)
    for earlier, later in pairwise(pauses):
        assert later >= earlier * (1 - 1e-9)
    assert pauses[-1] <= max(ceiling, floor) * (1 + 1e-9)
    assert pauses[-1] >= min(ceiling, floor) * (1 - JITTER) - 1e-9
