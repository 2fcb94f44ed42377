"""Options: defaults, checks, environment, and that every face of them is one definition."""

import os
import re
import sys
from pathlib import Path

import pytest

from recluster.base.cpus import cgroup_quota, usable_cpus
from recluster.options import FIELDS, Options
from recluster.options.checks import OptionError
from recluster.verbs import cli
from recluster.verbs import help as help_text

ROOT = Path(__file__).parents[2]


def make(environ=None, **given):
    return Options.make(given, environ or {})


def test_defaults():
    options = make()
    assert options.workers == usable_cpus() >= 1
    assert options.timeout == (1.0 if sys.flags.dev_mode else 3600.0)
    assert (options.respawn, options.backoff, options.ready_timeout) == (1.0, 30.0, 60.0)
    assert options.ready_when == "accepting"
    assert options.log == {"respawns": True}
    assert options.give_up == 10


def test_frozen():
    with pytest.raises(AttributeError):
        make().workers = 3


def test_environment():
    assert make({"WEB_CONCURRENCY": "7"}).workers == 7
    assert make({"WEB_CONCURRENCY": "7", "RECLUSTER_WORKERS": "3"}).workers == 3
    assert make({"RECLUSTER_WORKERS": "3"}, workers=2).workers == 2
    assert make({"RECLUSTER_ENV": "development"}).timeout == 1.0
    assert make({"RECLUSTER_READY_TIMEOUT": "none"}).ready_timeout is None
    assert make({"RECLUSTER_LOG": "respawns=no"}).log == {"respawns": False}
    assert make({"RECLUSTER_WORKER_ENV": "A=b"}).env == {"A": "b"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 0), ("workers", "x"), ("workers", 1.5), ("workers", True), ("workers", None),
        ("timeout", -1), ("timeout", "soon"), ("timeout", float("nan")), ("timeout", None),
        ("respawn", float("inf")), ("backoff", "fast"), ("ready_timeout", -0.1),
        ("ready_when", "later"), ("give_up", -1), ("stop_signal", "NOPE"), ("stop_signal", 999),
        ("door", "back"), ("log", {"weather": True}), ("log", "perhaps"), ("args", "one string"),
        ("args", 5), ("env", {"A=B": "c"}), ("env", {"": "c"}), ("cwd", "/no/such/folder"),
        ("drain_settle", "x"), ("balance", "fair"), ("weights", "0"), ("weights", "0=x"),
        ("weights", "x=1"), ("weights", {0: -1}), ("weights", {0: float("nan")}),
        ("weights", {-1: 1}), ("weights", {0.5: 1}), ("weights", {0: True}), ("weights", 3),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_option(name, value):
    with pytest.raises(OptionError) as caught:
        make(**{name: value})
    assert str(caught.value).startswith(f"{name}: {value!r} ")
    assert "\n" not in str(caught.value)


def test_a_bad_variable_is_named():
    with pytest.raises(OptionError, match="^RECLUSTER_WORKERS: 'x' must be"):
        make({"RECLUSTER_WORKERS": "x"})
    with pytest.raises(OptionError, match="^WEB_CONCURRENCY: '0' must be"):
        make({"WEB_CONCURRENCY": "0"})


def test_weights():
    assert make().weights == {}
    given = make(balance="weighted", weights="0=3,2=0.5", workers=3).weights
    assert given == make(balance="weighted", weights={0: 3, "2": 0.5}, workers=3).weights
    assert given == {0: 3.0, 2: 0.5}
    assert make({"RECLUSTER_BALANCE": "weighted", "RECLUSTER_WEIGHTS": "1=0"}).weights == {1: 0.0}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"weights": {0: 1}}, "go with balance weighted"),
        ({"weights": {0: 1}, "balance": "shared"}, "go with balance weighted"),
        ({"weights": {0: 0, 1: 0}, "balance": "weighted", "workers": 2}, "all are 0"),
        ({"balance": "shared", "surge": 1}, "does not go with balance shared"),
    ],
)
def test_what_does_not_go_together(given, why):
    with pytest.raises(OptionError, match=why):
        make(**given)


def test_an_unknown_option_is_named():
    with pytest.raises(OptionError, match="wrokers"):
        make(wrokers=3)


def test_stop_signal_by_name_and_number():
    assert make(stop_signal="INT").stop_signal == make(stop_signal=2).stop_signal == 2
    assert make(stop_signal="SIGQUIT").stop_signal == 3


def test_every_option_has_a_flag_in_help():
    text = help_text.full()
    for one in FIELDS:
        if one.name != "args":
            assert f" {one.usage}" in text
            assert one.variable in re.sub(r"\s+", "", text)


def test_readme_has_the_table_that_the_definition_makes():
    assert cli.options_table() in (ROOT / "docs" / "options.md").read_text()


@pytest.mark.parametrize(
    ("files", "table", "expected"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
        ({"cpu.max": "200000 100000"}, "0::/not/mounted/here", 2.0),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
         "4:cpu,cpuacct:/", 3.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", None),
        ({}, "0::/", None),
    ],
)  # fmt: skip
def test_cgroup_quota(tmp_path, files, table, expected):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cgroup_quota(table, tmp_path) == expected


def test_usable_cpus_follows_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
