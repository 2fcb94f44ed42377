"""Configuration files and env files: what is read of them, and what is said of mistakes."""

import os
import re
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recluster.child.launch import Target
from recluster.master.settings import LIVE, Settings
from recluster.options import GIVEN, Options, configfile, envfile
from recluster.options.checks import OptionError
from recluster.options.fields import FIELDS
from recluster.verbs import printed

# ---- env files -----------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n\n# A=1\n  # B=2\n", {}),
        ("A=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("export A=1\n", {"A": "1"}),
        ("  A = 1 2  \n", {"A": "1 2"}),
        ("A=\nB=x", {"A": "", "B": "x"}),
        ("A=x # y\n", {"A": "x"}),
        ("A=x#y\n", {"A": "x#y"}),
        ("A=# y\n", {"A": ""}),
        ("A=a=b\n", {"A": "a=b"}),
        ("A='x # y'  # z\n", {"A": "x # y"}),
        ("A='\\n$B'\n", {"A": "\\n$B"}),
        ('A=""\n', {"A": ""}),
        ('A="a\\n\\t\\"\\\\\\$b"\n', {"A": 'a\n\t"\\$b'}),
        ('A="x\ny"\nB=1', {"A": "x\ny", "B": "1"}),
        ("A='x\ny'\nB=1", {"A": "x\ny", "B": "1"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ('A="\\q"', {"A": "\\q"}),
        ("A=it's\n", {"A": "it's"}),
        ("exportA=1", {"exportA": "1"}),
        ("A=1\n\n\n", {"A": "1"}),
    ],
)
def test_env_file(text, expected):
    assert envfile.parse(text, "f") == expected


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("A=1\nB\n", "f:2", "NAME=VALUE"),
        ("A=1\n=2", "f:2", "NAME=VALUE"),
        ("\n1A=2", "f:2", "'1A' is no name"),
        ("A='x\ny\n", "f:1", "never closed"),
        ('B=1\n\nA="x\\"', "f:3", "never closed"),
        ("A='x' y\n", "f:1", "behind"),
        ("A=x\0y", "f:1", "zero byte"),
        ("A B=1", "f:1", "NAME=VALUE"),
        ("C='a\nb'\nA B", "f:3", "NAME=VALUE"),
    ],
)
def test_a_mistake_in_an_env_file_is_told_with_its_line_and_no_value(text, where, why):
    with pytest.raises(OptionError, match=why) as caught:
        envfile.parse(text, "f")
    assert str(caught.value).startswith(f"{where}: ") and "x" not in str(caught.value)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_quoted_comes_back(values):
    special = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"}
    quoted = {k: "".join(special.get(c, c) for c in v) for k, v in values.items()}
    text = "\n".join(f'{name}="{value}"' for name, value in quoted.items())
    assert envfile.parse(text, "f") == values


@given(st.text(st.sampled_from("A='\"\\ #\nx\r\tB1\0$"), max_size=30))
def test_no_text_does_anything_else_than_parse_or_fail(text):
    try:
        found = envfile.parse(text, "f")
    except OptionError as error:
        assert str(error).startswith("f:")
    else:
        assert all("\0" not in value for value in found.values())


def test_env_files_later_ones_first_and_any_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"\xef\xbb\xbfA=1\nB=\xff\n")
    two.write_text("A=2\n")
    assert envfile.read([one, two]) == {"A": "2", "B": os.fsdecode(b"\xff")}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: None])
def test_a_path_that_is_no_file_is_told_and_not_waited_for(tmp_path, make):
    path = str(tmp_path / "x")
    make(path)
    for read in (configfile.read, lambda path: envfile.read([path])):
        with pytest.raises(OptionError, match="x: (is not a regular|No such|Is a dir)"):
            read(path)


# ---- the configuration file ----------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(text, name="recluster.toml", target="s.py", environ=None, **given):
    with open(name, "w") as file:
        file.write(text)
    return Settings(target, None, name, given)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workers = 3", {"workers": 3}),
        ("drain-settle = 2", {"drain_settle": 2.0}),
        ("log = false", {"log": {"respawns": False}}),
        ("backoff = 'none'", {"backoff": None}),
        ("bind = ['127.0.0.1:80']", {"bind": ("127.0.0.1:80",)}),
        ("[env]\nA = '1'\n", {"env": {"A": "1"}}),
        ("balance = 'weighted'\nweights = {0 = 3, 1 = 0.5}", {"weights": {0: 3.0, 1: 0.5}}),
        ("args = ['a', '-b']", {"args": ("a", "-b")}),
        ("stop_signal = 'INT'", {"stop_signal": 2}),
    ],
)
def test_values(folder, text, expected):
    found = (
        settings(text, target=None if "args" in text else "s.py")
        if "args" not in text
        else (settings(f"target = 's.py'\n{text}", target=None))
    )
    assert {name: getattr(found.options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\nwrokers = 3", "recluster.toml:2: wrokers: there is no such option; did you mean work"),
        ("\n\nworkers = 'x'", "recluster.toml:3: workers: 'x' must be a whole number"),
        ("workers = 3\nworkers = 4", "recluster.toml:2: Cannot overwrite a value"),
        ("workers = 3\ntimeout = ", "recluster.toml:2: Invalid value"),
        ("drain-settle = 1\ndrain_settle = 2", "recluster.toml:2: drain_settle: is there twice"),
        ("module = 'a'\ntarget = 'b'", "recluster.toml: give one of target, module, command, not"),
        ("command = 'a b'", "recluster.toml:1: command: 'a b' must be a list of words"),
        ("target = 5", "recluster.toml:1: target: 5 must be a string"),
        ("\nbake = 5\nsurge = 1", "recluster.toml:2: bake: 5 goes with surge 0 only"),
        ("\n[tool.recluster]\nworkers = 1", "recluster.toml:2: options stand at the top of recl"),
        ("\n[weather]\na = 1", "recluster.toml:2: weather: there is no such option"),
        ("[env]\n'A=B' = 1", "recluster.toml:1: env: {'A=B': 1} must be NAME=VALUE"),
    ],
)
def test_a_mistake_is_told_with_file_line_key_and_value(folder, text, error):
    with pytest.raises(OptionError) as caught:
        settings(text)
    assert str(caught.value).startswith(error) and "\n" not in str(caught.value)


def test_a_table_in_pyproject(folder):
    text = (
        "[project]\nworkers = 9\n\n[tool.recluster]\nworkers = 3\n[tool.recluster.env]\nA = 'b'\n"
    )
    found = settings(text, "pyproject.toml").options
    assert (found.workers, found.env) == (3, {"A": "b"})
    assert found.sources == {"workers": "pyproject.toml:5", "env": "pyproject.toml:6"}
    assert settings("[project]\nname = 'x'\n", "pyproject.toml").options.sources == {}


def test_flag_before_environment_before_file_before_default():
    config = {
        "workers": (2, "f:1"),
        "timeout": (20, "f:2"),
        "respawn": (5, "f:3"),
        "env": ({"A": "file", "B": "file", "C": "file"}, "f:4"),
    }
    environ = {
        "RECLUSTER_TIMEOUT": "30",
        "RECLUSTER_WORKERS": "3",
        "RECLUSTER_WORKER_ENV": "B=variable",
    }
    made = Options.make({"workers": 4, "env": ["A=flag"]}, environ, config)
    assert (made.workers, made.timeout, made.respawn, made.backoff) == (4, 30.0, 5.0, 30.0)
    assert made.env == {"A": "flag", "B": "variable", "C": "file"}
    assert made.sources == {
        "workers": GIVEN,
        "timeout": "RECLUSTER_TIMEOUT",
        "respawn": "f:3",
        "env": f"{GIVEN}, RECLUSTER_WORKER_ENV, f:4",
    }
    shared = Options.make({}, {"WEB_CONCURRENCY": "7"}, config)
    assert (shared.workers, shared.sources["workers"]) == (7, "WEB_CONCURRENCY")


def test_the_arguments_in_a_file_are_those_of_its_own_program(folder):
    text = "module = 'uvicorn'\nargs = ['main:app']\nworkers = 2\n"
    found = settings(text, target=None)
    assert (found.target, found.options.args) == (Target("module", ("uvicorn",)), ("main:app",))
    other = settings(text, target="s.py")
    assert (other.target.words, other.options.args, other.options.workers) == (("s.py",), (), 2)


def test_python_310_needs_tomli_and_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(OptionError, match=r"recluster.toml: .*3.10.*tomli.*recluster\[toml\]"):
        settings("workers = 3")
    tomli = types.ModuleType("tomli")
    tomli.loads = lambda text: {"workers": 5}
    monkeypatch.setitem(sys.modules, "tomli", tomli)
    assert settings("workers = 3").options.workers == 5


# ---- the file that nobody names ------------------------------------------------------


def test_a_file_of_our_name_is_meant_and_a_pyproject_with_our_table(folder):
    assert configfile.lookup() == (None, None)
    (folder / "pyproject.toml").write_text("[tool.ruff]\n# tool.recluster\n")
    assert configfile.lookup() == (None, None)
    (folder / "pyproject.toml").write_text("[tool.ruff]\n[tool.recluster]\n")
    assert configfile.lookup() == ("pyproject.toml", None)
    (folder / "recluster.toml").write_text("")
    assert configfile.lookup() == ("recluster.toml", None)


def test_a_file_that_anybody_may_write_is_not_meant(folder):
    path = folder / "recluster.toml"
    path.write_text("workers = 3")
    path.chmod(0o666)
    found, why = configfile.lookup()
    assert found is None and why.startswith(
        "recluster.toml belongs to somebody else: it is not used"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_file_of_another_user_is_meant_only_in_a_folder_of_that_user(folder):
    path = folder / "recluster.toml"
    path.write_text("workers = 3")
    os.chown(path, 12345, -1)
    assert configfile.lookup()[0] is None
    os.chown(folder, 12345, -1)
    assert configfile.lookup() == ("recluster.toml", None)
    folder.chmod(0o1777)
    assert configfile.lookup()[0] is None


# ---- what is printed -----------------------------------------------------------------


def test_what_check_prints_is_a_file_that_says_the_same(folder):
    given = {
        "workers": 3,
        "backoff": None,
        "env": {"A": 'x"\n\x7fé', "B-C": "2"},
        "drain_quiet": "timeout",
        "balance": "weighted",
        "weights": {0: 3, 2: 0.5},
        "args": ["a b", "-c"],
        "stop_signal": "INT",
        "log": False,
        "bind": ["127.0.0.1:80"],
        "name": "x",
        "ready_url": "https:/health",
        "hold": None,
        "respawn": 0.1,
        "timeout": 1234567.5,
    }
    options = Options.make(given, {})
    text = printed.text(options, Target("module", ("uvicorn",)))
    again = settings(text, target=None)
    assert again.target == Target("module", ("uvicorn",))
    for one in FIELDS:
        assert getattr(again.options, one.name) == getattr(options, one.name), one.name
        assert f"{one.name} = " in text
    assert set(again.options.sources) == set(given)


def test_the_page_names_what_a_reload_takes():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    listed = page.partition("<!-- live -->")[2].partition("<!-- end -->")[0]
    assert re.findall(r"\w+", listed) == list(LIVE)
