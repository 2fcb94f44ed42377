"""numpy's generator in a mold, where numpy is not what we know."""

import sys
import types

import pytest

from recluster.mold import reseed


@pytest.fixture
def numpy(monkeypatch):
    """One of which nothing is known."""
    made = types.ModuleType("numpy.random")
    monkeypatch.setitem(sys.modules, "numpy.random", made)
    return made


def test_without_numpy_there_is_nothing_to_do(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy.random", raising=False)
    assert reseed.prepared() is None


def test_another_numpy_is_seeded_in_its_own_way(numpy):
    numpy.seed = lambda: "seeded"
    assert reseed.prepared()() == "seeded"


def test_one_that_cannot_be_seeded_ends_no_mold(numpy):
    assert reseed.prepared() is None


def test_a_state_that_is_not_where_it_should_be_is_not_written(numpy):
    """The capsule is not numpy's."""
    key = types.SimpleNamespace(tobytes=lambda: b"x" * 16)
    numpy.get_state = lambda legacy: {"bit_generator": "MT19937", "state": {"key": key}}
    numpy.mtrand = types.SimpleNamespace(
        _rand=types.SimpleNamespace(_bit_generator=types.SimpleNamespace(capsule=object()))
    )
    numpy.seed = lambda: "seeded"
    assert reseed.prepared()() == "seeded"
