"""What a type checker says of a user's program, and that what it is told is the truth."""

import ast
import importlib.util
import inspect
import pathlib
import pydoc
import re
import subprocess
import sys
import typing

import pytest

import recluster
from recluster import events
from recluster.master import callbacks
from recluster.options import FIELDS, Options, given

RIGHT = """
import asyncio
import logging
import pathlib
import recluster
from recluster import events, worker

cluster = recluster.Cluster(
    pathlib.Path("a.py"),
    workers=4, timeout=30, backoff=None, balance="weighted", weights={0: 3, 1: 0.5},
    env={"A": "b", "C": None}, args=["--port", "80"], stop_signal="INT", log=False,
    bind=["127.0.0.1:80"], drain_quiet="timeout", logger=logging.getLogger("x"),
)
recluster.Cluster("a.py")
recluster.Cluster(module="uvicorn", args=["app:app"])
recluster.Cluster(["node", pathlib.Path("a.js")], hold=None, cwd=pathlib.Path("/"))

def ended(event: events.Exit) -> None:
    lived: float = event.lived
    code: int | None = event.code
    who: recluster.Worker | None = event.worker
    print(event.signal, event.next_try, lived, code, who, event.name, event.details)

cluster.on("exit", ended)
cluster.on("message", lambda event: print(event.message))
cluster.on(events.Ready, lambda event: print(event.seconds))

@cluster.on("exit")
def again(event: events.Exit) -> None:
    print(event.code)

@cluster.on(events.Hold)
async def held(event: events.Hold) -> None:
    print(event.address)

again(events.Exit(0, None, 1.0))

def note(event: recluster.Event) -> None:
    print(event.name)

for name in events.NAMES:
    cluster.on(name, note)
cluster.off("exit", ended)

async def main() -> None:
    async with recluster.Cluster("a.py") as inside:
        handle: recluster.ReloadHandle = await inside.reload()
        print(handle.ok)
        code: int = await inside.ended()

print(worker.id, worker.send({}))
"""

WRONG = """
import recluster
from recluster import events
recluster.Cluster("a.py", wrokers=3)  # wrong
recluster.Cluster("a.py", workers="three")  # wrong
recluster.Cluster("a.py", balance="fair")  # wrong
recluster.Cluster("a.py", module="b")  # wrong
recluster.Cluster()  # wrong
recluster.Cluster(b"a.py")  # wrong
recluster.Cluster(["node", 5])  # wrong
recluster.Cluster("a.py", logger=print)  # wrong
recluster.Clutser("a.py")  # wrong
c = recluster.Cluster("a.py")
def f(event: events.Exit) -> None: ...
c.on("exitt", f)  # wrong
c.on("ready", f)  # wrong
c.on("exit", lambda event: event.cdoe)  # wrong
c.on("exit", lambda event: event.queued)  # wrong
c.on(events.Hung, lambda event: event.code)  # wrong
c.on(events.Ready, f)  # wrong
c.off("exitt", f)  # wrong
c.scale("3")  # wrong
c.reload(f)  # wrong
c.relaod()  # wrong
@c.on("ready")  # wrong
def g(event: events.Exit) -> None: ...
def h(event: events.Exit) -> int:
    return event.cdoe  # wrong
recluster.worker.sned({})  # wrong
c.options.wrokers  # wrong
c.reload().okay  # wrong
c.workers()[0].slot  # wrong
"""


@pytest.fixture
def complaints(tmp_path):
    """The lines of a program that mypy complains of."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")

    def check(text):
        (tmp_path / "program.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10", "program.py"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode in (0, 1), done.stderr
        print(done.stdout)
        return [int(line) for line in re.findall(r"^program.py:(\d+): error", done.stdout, re.M)]

    return check


def test_right_programs_are_right(complaints):
    assert complaints(RIGHT) == []


def test_each_mistake_is_found(complaints):
    wrong = [at for at, line in enumerate(WRONG.split("\n"), 1) if "# wrong" in line]
    assert sorted(set(complaints(WRONG))) == wrong


# ---- what checkers are told is what there is ---------------------------------------------


def test_options_that_checkers_know_are_the_fields():
    known = set(typing.get_type_hints(given.Given))
    fields = {one.name for one in FIELDS}
    assert fields - known == set(), (
        "src/recluster/options/given.py lacks these options: add a line each"
    )
    assert known - fields == set(), "src/recluster/options/given.py has options that there are not"


def literals(hint):
    if typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint)
    for inner in typing.get_args(hint):
        yield from literals(inner)


def test_choices_that_checkers_know_are_taken():
    for name, hint in typing.get_type_hints(given.Given).items():
        (field,) = [one for one in FIELDS if one.name == name]
        choices = list(literals(hint))
        for value in choices:
            field.check(value)
        if choices and field.check.__qualname__.startswith("one_of"):
            with pytest.raises(ValueError) as caught:
                field.check("no such")
            assert set(str(caught.value).removeprefix("must be one of ").split(", ")) == set(
                choices
            )
        if type(None) in typing.get_args(hint):
            Options.make({name: None}, {})


def test_overloads_of_on_are_the_events():
    text = inspect.getsource(callbacks)
    assert callbacks.overloads() in text, "callbacks.py: print(callbacks.overloads()) goes there"


def test_names_are_those_of_the_classes():
    assert typing.get_args(events.EventName) == tuple(one.name for one in events.EVENTS)
    assert {one.name for one in events.EVENTS}.isdisjoint(one.name for one in events.LOGGED)
    assert all(one.public for one in events.EVENTS)
    assert not any(one.public for one in events.LOGGED)
    everything = {*events.EVENTS, *events.LOGGED}
    assert set(events.Event.__subclasses__()) == everything


def test_an_event_cannot_be_changed():
    event = events.Exit(0, None, 1.0)
    with pytest.raises(AttributeError):
        event.code = 1
    assert "hint" not in event.details
    assert event.details["lived"] == 1.0


# ---- what one sees at a prompt -----------------------------------------------------------

API = {"Cluster", "ClusterError", "Event", "OptionError", "Options", "ReloadHandle", "Worker"}


def test_dir_shows_the_api():
    shown = {name for name in dir(recluster) if not name.startswith("_")}
    assert API | {"events", "worker"} <= shown
    with pytest.raises(AttributeError, match="Clutser"):
        _ = recluster.Clutser


def test_help_shows_the_api():
    text = pydoc.plain(pydoc.render_doc(recluster))
    for name in API:
        assert f"class {name}(" in text
    assert "Replace all workers by new ones" in text


def test_every_public_method_has_a_docstring():
    for owner in (recluster.Cluster, recluster.ReloadHandle):
        for name in dir(owner):
            if not name.startswith("_"):
                assert inspect.getdoc(inspect.getattr_static(owner, name)), name


def test_typing_extensions_is_for_checkers_only():
    for module in ("options.given", "cluster", "master.callbacks"):
        tree = ast.parse(inspect.getsource(importlib.import_module(f"recluster.{module}")))
        outside = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert "typing_extensions" not in [getattr(node, "module", None) for node in outside]


def test_the_page_has_the_table_that_the_classes_make():
    page = pathlib.Path(__file__).parents[2] / "docs" / "library.md"
    assert events.table() in page.read_text()
