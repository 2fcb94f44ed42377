"""What a program is made of, the worker finds out as python would; the master only looks.

Each form that `python` runs is run the same, and what is replaced on disk is new in the next
worker. Whatever the program's files are, the master goes on.
"""

import os
import py_compile
import sys
import textwrap
import venv
import zipfile

import pytest
from clients import answers
from harness import Running, edit
from sameness import by_python, by_recluster

import recluster

FACTS = textwrap.dedent("""\
    import sys
    import __main__
    spec = __main__.__spec__
    print(__file__, __name__, __package__, type(__loader__).__name__)
    print(spec and (spec.name, spec.origin), sys.argv, sys.path[:3])
    """)


FINDER = """
    import sys
    from importlib.util import spec_from_file_location

    class Finder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "edited":
                return spec_from_file_location(name, WHERE)

    sys.meta_path.append(Finder)
    """


def write(path, text=FACTS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def archive(path, members):
    fresh = path.with_name(path.name + ".new")
    with zipfile.ZipFile(fresh, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    fresh.replace(path)


def bytecode(path, text=FACTS):
    source = path.with_name("source.py")
    write(source, text)
    py_compile.compile(str(source), str(path), dfile=str(path), doraise=True)
    source.unlink()


def _files(directory):
    write(directory / "regular/__init__.py", "print('the package')")
    write(directory / "regular/sub/mod.py")
    write(directory / "a/b/mod.py")
    write(directory / "elsewhere/far.py")
    write(directory / "folder/__main__.py")
    bytecode(directory / "compiled/__main__.pyc")
    bytecode(directory / "one.pyc")
    bytecode(directory / "no_ending")
    (directory / "bad.pyc").write_bytes(b"text")
    (directory / "short.pyc").write_bytes((directory / "one.pyc").read_bytes()[:16])
    write(directory / "empty/other.py")
    (directory / "deep/__main__").mkdir(parents=True)
    members = {"__main__.py": FACTS, "inner/__init__.py": "", "inner/mod.py": FACTS}
    archive(directory / "app.pyz", members)
    archive(directory / "no_main.zip", {"mod.py": FACTS})
    data = b"#!/usr/bin/env python3\n" + (directory / "app.pyz").read_bytes()
    (directory / "with_line").write_bytes(data)
    (directory / "cut.pyz").write_bytes(data[: len(data) // 2])


RUN_BY_PYTHON = {
    "a namespace package in a package": ["-m", "regular.sub.mod"],
    "namespace packages": ["-m", "a.b.mod"],
    "a folder": ["folder", "argument"],
    "a folder of bytecode": ["compiled"],
    "a folder by absolute path": ["{here}/folder"],
    "bytecode": ["one.pyc", "argument"],
    "bytecode without an ending": ["no_ending"],
    "an archive": ["app.pyz", "argument"],
    "an archive with a line before it": ["./with_line"],
}
REFUSED_BY_PYTHON = {
    "a wrong magic number": ["bad.pyc"],
    "half of its bytecode": ["short.pyc"],
    "a folder without a main": ["empty"],
    "a folder with a package as main": ["deep"],
    "an archive without a main": ["no_main.zip"],
    "no module": ["-m", "no_such_module"],
    "no module in a module": ["-m", "json.no_such_module"],
    "a package without a main": ["-m", "regular"],
}


def forms(table):
    return pytest.mark.parametrize("args", table.values(), ids=[*table])


def the_same(args, directory, flags=(), env=None, options=()):
    args = [word.format(here=directory) for word in args]
    python = by_python(args, directory, flags, env)
    worker = by_recluster([*options, *args], directory, flags, env)
    assert worker == python
    return python


@forms(RUN_BY_PYTHON)
def test_python_runs_it_and_so_do_we(args, tmp_path):
    _files(tmp_path)
    assert the_same(args, tmp_path)[2] == 0


@forms(RUN_BY_PYTHON)
def test_in_an_interpreter_of_its_own_too(args, tmp_path):
    """An option for PYTHON... is for an interpreter that starts."""
    _files(tmp_path)
    options = ("--env", "PYTHONHASHSEED=1")
    assert the_same(args, tmp_path, options=options)[2] == 0


@forms(REFUSED_BY_PYTHON)
def test_python_refuses_it_and_so_do_we(args, tmp_path):
    _files(tmp_path)
    assert the_same(args, tmp_path)[2] != 0


def test_half_an_archive_is_no_program(tmp_path):
    """Python reads it as text; in which words it finds fault with that depends on how it
    has read it."""
    _files(tmp_path)
    for end in (by_python(["cut.pyz"], tmp_path), by_recluster(["cut.pyz"], tmp_path)):
        assert end[0] == "" and end[2] == 1
        assert "Error: " in end[1]


@pytest.mark.parametrize("flag", ["-P", "-I", "PYTHONSAFEPATH"])
@pytest.mark.parametrize("name", ["app.pyz", "folder", "one.pyc"])
def test_a_safe_path_is_not_for_archives_and_folders(name, flag, tmp_path):
    if flag == "-P" and not hasattr(sys.flags, "safe_path"):
        pytest.skip("python -P is of 3.11")
    _files(tmp_path)
    if flag == "PYTHONSAFEPATH":
        assert the_same([name], tmp_path, env={flag: "1"})[2] == 0
    else:
        assert the_same([name], tmp_path, flags=[flag])[2] == 0


def test_a_module_may_be_where_only_the_workers_look(tmp_path):
    _files(tmp_path)
    elsewhere = str(tmp_path / "elsewhere")
    python = by_python(["-m", "far"], tmp_path, env={"PYTHONPATH": elsewhere})
    worker = by_recluster(["--env", f"PYTHONPATH={elsewhere}", "-m", "far"], tmp_path)
    assert worker == python
    assert python[2] == 0


def test_a_module_in_an_archive_in_pythonpath(tmp_path):
    _files(tmp_path)
    env = {"PYTHONPATH": str(tmp_path / "app.pyz")}
    assert the_same(["-m", "inner.mod"], tmp_path, env=env)[2] == 0


def test_a_finder_of_an_editable_install(tmp_path):
    """setuptools' kind: a .pth file imports a module that puts a finder into sys.meta_path.
    Here sitecustomize does, found by PYTHONPATH."""
    _files(tmp_path)
    where = tmp_path / "elsewhere/far.py"
    text = textwrap.dedent(FINDER).replace("WHERE", repr(str(where)))
    write(tmp_path / "site/sitecustomize.py", text)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    assert the_same(["-m", "edited"], tmp_path, env=env)[2] == 0


@pytest.mark.parametrize("kind", ["finder", "path"])
def test_an_editable_install_that_changes_is_new_code(kind, apps, monkeypatch):
    """In a virtual environment of its own: what its .pth files say, the next worker does."""
    venv.create(apps / "venv", with_pip=False, symlinks=True)
    (site,) = (apps / "venv/lib").glob("python3*/site-packages")
    source = os.path.dirname(os.path.dirname(recluster.__file__))
    (site / "recluster.pth").write_text(source)
    monkeypatch.setattr(sys, "executable", str(apps / "venv/bin/python"))

    def install(version):
        where = apps / f"releases/{version}/edited.py"
        write(where, server(apps, version))
        if kind == "path":
            (site / f"release-{version - 1}.pth").unlink(missing_ok=True)
            (site / f"release-{version}.pth").write_text(str(where.parent))
            return
        fresh = site / "fresh"
        fresh.write_text(textwrap.dedent(FINDER).replace("WHERE", repr(str(where))))
        os.utime(fresh, (version * 100, version * 100))
        fresh.replace(site / "edited_finder.py")
        (site / "edited.pth").write_text("import edited_finder")

    install(1)
    with Running("--workers", 2, "-m", "edited", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert served(running) == "1"
        install(2)
        assert running.reload()["ok"]
        assert served(running) == "2"


def test_its_modules_are_its_own_and_none_of_the_masters(tmp_path):
    """Names of the standard library that recluster has loaded, or would load."""
    for name in ("json", "argparse", "signal", "traceback", "selectors"):
        write(tmp_path / f"{name}.py", f"import os; print('own {name}', os.getpid())")
    write(tmp_path / "program.py", "import json, os, signal; print(os.getpid(), json.__file__)")
    for args in (["program.py"], ["-m", "program"]):
        output, errors, code = by_recluster(args, tmp_path)
        assert (errors, code) == ("", 0)
        *own, (pid, file) = [line.rsplit(None, 1) for line in output.splitlines()]
        assert [name for name, _ in own] == ["own json", "own signal"]
        assert {by for _, by in own} == {pid}  # nobody else has imported them
        assert file == str(tmp_path / "json.py")


# ---- what is replaced ----------------------------------------------------------------


def server(apps, version):
    """The text of a server that says its version."""
    text = (apps / "http_server.py").read_text()
    assert 'VERSION = "1"' in text
    return text.replace('VERSION = "1"', f'VERSION = "{version}"')


def archives(apps, version, filler):
    """Another layout each time: what is known of the old file's is of no use."""
    text = server(apps, version)
    return {"filler.txt": "x" * filler, "__main__.py": text, "srv.py": text}


def served(running):
    return answers(running.port, 1)[0]["version"]


@pytest.mark.parametrize("how", ["file", "PYTHONPATH"])
def test_a_replaced_archive_is_new_code(how, apps):
    path = apps / "app.pyz"
    archive(path, archives(apps, 1, 10))
    args = ["-m", "srv", "0"] if how == "PYTHONPATH" else ["app.pyz", "0"]
    env = {"PYTHONPATH": str(path)} if how == "PYTHONPATH" else None
    with Running("--workers", 2, *args, cwd=apps, env=env) as running:
        running.wait_each("ready", 2)
        assert served(running) == "1"
        for version in (2, 3):
            archive(path, archives(apps, version, 5000 * version))
            assert running.reload()["ok"], running.stderr()
            assert served(running) == str(version)
        archive(path, archives(apps, 4, 1))  # a successor runs what is there, too
        os.kill(running.pids()[0], 9)
        running.wait_for("exit", where=lambda event: event["signal"] == "SIGKILL")
        running.wait_for("ready", slot=0, generation=3)


def test_a_damaged_archive_is_a_verdict(apps):
    """A name that is not what it says it is: one byte of it was flipped."""
    path = apps / "app.pyz"
    archive(path, archives(apps, 1, 10) | {"n\u00e4me.txt": "x"})
    with Running("--workers", 2, "app.pyz", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        data = path.read_bytes()
        fresh = apps / "fresh"
        fresh.write_bytes(data.replace("n\u00e4me".encode(), b"n\xc3\x28me"))
        fresh.replace(path)
        outcome = running.reload()
        assert not outcome["ok"]
        assert "worker" in outcome["why"]
        assert served(running) == "1"
        archive(path, archives(apps, 2, 77))
        assert running.reload()["ok"]
        assert served(running) == "2"


# ---- what is no program --------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_server.py", "app.pyz"])
def test_a_fifo_in_its_place_holds_up_only_the_worker(name, apps):
    archive(apps / "app.pyz", archives(apps, 1, 1))
    options = ("--workers", 2, "--ready-timeout", 2)
    with Running(*options, name, "0", cwd=apps) as running:
        pids = {slot: event["pid"] for slot, event in running.wait_each("ready", 2).items()}
        path = apps / name
        text = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        outcome = running.reload()
        assert not outcome["ok"]
        assert served(running) == "1"
        os.kill(pids[0], 9)
        running.wait_for("exit", pid=pids[0])
        assert running.status()
        path.unlink()
        path.write_bytes(text)
        running.wait_for("ready", slot=0)
        assert running.end() == 0


def test_a_fifo_as_command_holds_up_nobody(apps):
    """Where programs that are exec'd get the preload library, which has to fit them."""
    command = apps / "command"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} http_server.py 0\n")
    command.chmod(0o755)
    options = ("--workers", 2, "--balance", "round_robin", "--balance-by", "dispatch")
    with Running(*options, "--respawn", 0, "--", "./command", cwd=apps) as running:
        pids = {slot: event["pid"] for slot, event in running.wait_each("ready", 2).items()}
        text = command.read_bytes()
        command.unlink()
        os.mkfifo(command, 0o755)
        outcome = running.reload()
        assert not outcome["ok"]
        os.kill(pids[0], 9)
        running.wait_for("exit", pid=pids[0])
        assert running.status()
        command.unlink()
        command.write_bytes(text)
        command.chmod(0o755)
        running.wait_for("ready", slot=0)
        assert running.end() == 0


def test_a_file_that_is_gone_is_a_verdict(apps):
    with Running("--workers", 1, "http_server.py", "0", cwd=apps) as running:
        running.wait_for("ready")
        (apps / "http_server.py").rename(apps / "aside.py")
        outcome = running.reload()
        assert not outcome["ok"]
        assert "can't open file" in outcome["why"] and "http_server.py" in outcome["why"]
        (apps / "aside.py").rename(apps / "http_server.py")
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        assert running.reload()["ok"]


NOTHING = {
    "no module": (["-m", "no_such_module"], "no_such_module"),
    "no module in a module": (["-m", "json.no_such_module"], "json.no_such_module"),
    "an empty folder": (["nothing_here"], "nothing_here"),
}


@pytest.mark.parametrize("what", NOTHING)
def test_nothing_to_run_is_code_2_and_says_of_what(what, apps):
    (apps / "nothing_here").mkdir()
    args, named = NOTHING[what]
    with Running("--workers", 2, *args, cwd=apps) as running:
        assert running.wait() == 2
        (line,) = [line for line in running.log() if "nothing to run" in line]
        assert named in line


def test_a_module_that_misses_another_is_tried_again(apps):
    """It is there: what it needs may come."""
    write(apps / "needs.py", "import no_such_module")
    options = ("--workers", 1, "--respawn", 0, "--backoff", 0, "--give-up", 3)
    with Running(*options, "-m", "needs", cwd=apps) as running:
        assert running.wait() == 1
        assert running.count("exit") == 3


# ---- a link to the release -----------------------------------------------------------


def releases(apps):
    """current -> one, and two beside it."""
    for version in (1, 2):
        write(apps / f"releases/{version}/srv.py", server(apps, version))
    current = apps / "current"
    current.symlink_to("releases/1")
    return current


def deploy(current, version):
    fresh = current.with_name("fresh")
    fresh.symlink_to(f"releases/{version}")
    fresh.replace(current)


LEFT = "which led there, now leads to"


def test_a_release_that_a_link_has_left_is_told(apps):
    """As a service manager starts it: in the directory, without PWD."""
    current = releases(apps)
    with Running("--workers", 1, "srv.py", "0", cwd=current, env={"PWD": ""}) as running:
        running.wait_for("ready")
        assert running.reload()["ok"]
        assert not any(LEFT in line for line in running.log())
        deploy(current, 2)
        assert running.reload()["ok"]
        assert served(running) == "1"
        (line,) = [line for line in running.log() if LEFT in line]
        assert f"--cwd {current}" in line and str(apps / "releases/2") in line


@pytest.mark.parametrize("how", ["--cwd", "PWD"])
def test_a_link_that_is_known_is_followed(how, apps):
    current = releases(apps)
    env = {"PWD": str(current) if how == "PWD" else ""}
    options = ("--cwd", current) if how == "--cwd" else ()
    with Running("--workers", 1, *options, "srv.py", "0", cwd=current, env=env) as running:
        running.wait_for("ready")
        deploy(current, 2)
        assert running.reload()["ok"]
        assert served(running) == "2"
        assert not any(LEFT in line for line in running.log())
