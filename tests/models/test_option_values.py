"""Whatever an option is given: it is taken, or refused with its name. Never another exception."""

import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recluster
from recluster.options import FIELDS, Options
from recluster.options.checks import OptionError, canary_part, worker_count

HUGE = 10**400
ODD = [
    None, True, False, 0, -1, 5, HUGE, -HUGE, 10**5000, 15.7, float("nan"), float("inf"), "", "\0",
    "a\0b", "9" * 5000, "1e999", "nan", "-1", " ", "=", ",", "=,=", "0=", "a=1=2", "\udcff", b"",
    b"/tmp", b"\xff", b"5", [], [5], [b"x"], [None], [[]], ["a\0"], (), {}, {5: 5}, {b"a": "b"},
    {"a": b"b"},
    {0: HUGE}, {HUGE: 0}, {b"5": 1}, {None: None}, Path("x"), Path("/tmp"), object(), print, int,
    iter([]), {1, 2}, ":8000", "[::]:99999999999999999999999", "x:" + "9" * 5000,
]  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
NAMES = [one.name for one in FIELDS]


def taken_or_refused(name, value):
    try:
        Options.make({name: value}, {})
    except OptionError as error:
        assert str(error).startswith(f"{name}: ")
        assert str(error).isprintable()
        assert len(str(error)) < 500


@pytest.mark.parametrize("name", NAMES)
def test_odd_values(name):
    for value in ODD:
        taken_or_refused(name, value)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), ANYTHING)
def test_any_value(name, value):
    taken_or_refused(name, value)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("workers", 10**9, "at most 65536"),
        ("workers", "9" * 5000, "at most 65536"),
        ("max_draining", HUGE, "at most"),
        ("cwd", b"/tmp", "must be text, not bytes"),
        ("cwd", "", "is not a directory"),
        ("args", [b"x"], "must be text, not bytes"),
        ("args", [5], "must be text"),
        ("args", ["a\0b"], "no null character"),
        ("env", [5], "must be NAME=VALUE"),
        ("env", {b"A": "b"}, "must be NAME=VALUE"),
        ("env", {"A": b"b"}, "must be text, not bytes"),
        ("env", {"A": "b\0"}, "no null character"),
        ("control", b"/tmp/x", "must be text, not bytes"),
        ("stop_signal", 15.7, "name or number"),
        ("stop_signal", True, "name or number"),
        ("weights", {0: HUGE}, "must be SLOT=WEIGHT"),
        ("log", "json", "must be yes, no or topics (respawns=yes)"),
        ("bind", ":8000", "0.0.0.0:8000, or [::]:8000"),
    ],
)
def test_why(name, value, why):
    with pytest.raises(OptionError) as caught:
        Options.make({name: value}, {})
    assert why in str(caught.value)


@pytest.mark.parametrize(("check", "name"), [(worker_count, "workers"), (canary_part, "canary")])
def test_scale_and_canary(check, name):
    for value in ODD:
        if (check, value) != (worker_count, 5):
            with pytest.raises(OptionError, match=f"^{name}: "):
                check(value)


@pytest.mark.parametrize(
    "target",
    [
        "",
        b"a.py",
        5,
        ["node", 5],
        [b"node"],
        [""],
        [],
        (),
        b"",
        bytearray(b"x"),
        ["a\0b"],
        "\0",
        {},
    ],
    ids=repr,
)
def test_a_target_that_is_none(target):
    with pytest.raises(OptionError):
        recluster.Cluster(target)


@pytest.mark.parametrize("module", ["", b"json", Path("json"), 5, ["json"], "a\0b"], ids=repr)
def test_a_module_that_is_none(module):
    with pytest.raises(OptionError, match="^module: "):
        recluster.Cluster(module=module)


@pytest.mark.parametrize("logger", [print, "log", 5, object()])
def test_a_logger_that_is_none(logger):
    with pytest.raises(OptionError, match="^logger: "):
        recluster.Cluster(module="json", logger=logger)


def test_what_stays_possible(tmp_path):
    made = Options.make(
        {"cwd": tmp_path, "args": [tmp_path, "x"], "env": {"A": 5, "B": tmp_path, "C": None}}, {}
    )
    assert made.cwd == str(tmp_path)
    assert made.args == (str(tmp_path), "x")
    assert made.env == {"A": "5", "B": str(tmp_path), "C": None}
    assert Options.make({"env": ["A=b=c", "D"]}, {}).env == {"A": "b=c", "D": None}
    assert Options.make({"stop_signal": "15"}, {}).stop_signal == signal.SIGTERM
