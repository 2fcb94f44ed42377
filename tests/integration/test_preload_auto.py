"""--preload auto: what workers import is seen, and what is preloaded is what is new."""

import os
import signal

import pytest
from clients import get
from harness import Running, edit, until
from preloadcase import CODE, answers_of, imports, molds, running

LATE = """
import sys
import code_of_it
from http_server import Handler, http

class Imports(Handler):
    def do_GET(self):
        import late
        super().do_GET()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Imports).serve_forever()
"""

FORKS = """
import http.server, os, sys, time
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), None)
for _ in range(2):
    if os.fork() == 0:
        import code_of_it
        from http_server import Handler
        server.RequestHandlerClass = Handler
        server.serve_forever()
os.wait()
"""


def test_the_first_shows_it_to_the_others(where):
    with running(where, preload="auto") as cluster:
        cluster.wait_each("ready", 3)
        scout = cluster.pids()[0]
        assert [int(one[1]) for one in imports(where)] == [scout, *molds(cluster)]
        edit(where / "code_of_it.py", 'VERSION = "1"', 'VERSION = "2"')
        assert cluster.reload()["ok"]
        assert [one[0] for one in imports(where)] == ["1", "1", "2"]
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"2"}
        os.kill(cluster.pids()[1], signal.SIGKILL)
        cluster.wait_for("exit", slot=1, generation=2)
        cluster.wait_for("ready", slot=1, generation=2)
        cluster.wait_for("ready", slot=1, generation=2)
        assert len(imports(where)) == 3
        assert not [line for line in cluster.log() if "preload: " in line]
        assert cluster.end() == 0


def test_where_no_mold_can_live_all_is_left_to_the_workers(where):
    """One worker of three served for ever: the others waited for what ended at each fork."""
    with (where / "code_of_it.py").open("a") as file:
        file.write("end = lambda: 'WORKER_ID' in os.environ or os._exit(7)\n")
        file.write("os.register_at_fork(before=end)\n")
    with running(where, preload="auto") as cluster:
        cluster.wait_each("ready", 3)
        told = [line for line in cluster.log() if "all is left to the workers" in line]
        assert len(told) == 1 and "exited with code 7, 3 times" in told[0]
        edit(where / "code_of_it.py", 'VERSION = "1"', 'VERSION = "2"')
        assert cluster.reload()["ok"]
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"2"}
        assert cluster.end() == 0


def test_a_scout_that_fails(where):
    (where / "server.py").write_text(
        "import os\nif os.path.exists('once'): os.remove('once'); 1 / 0\n"
        + (where / "server.py").read_text()
    )
    (where / "once").touch()
    with running(where, preload="auto") as cluster:
        cluster.wait_for("exit", slot=0)
        cluster.wait_each("ready", 3)
        assert len(imports(where)) == 2
        assert cluster.end() == 0


def test_broken_code_fails_the_reload_as_ever(where):
    with running(where, preload="auto") as cluster:
        cluster.wait_each("ready", 3)
        before = {facts["pid"] for facts in answers_of(cluster, 3)}
        edit(where / "code_of_it.py", 'VERSION = "1"', "VERSION = str(1 / 0)")
        outcome = cluster.reload()
        assert not outcome["ok"] and not outcome["changed"]
        assert "ZeroDivisionError: division by zero" in outcome["why"]
        assert {facts["pid"] for facts in answers_of(cluster, 3)} == before
        edit(where / "code_of_it.py", "str(1 / 0)", '"3"')
        assert cluster.reload()["ok"]
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"3"}
        assert imports(where)[-1][1] in map(str, molds(cluster))
        assert cluster.end() == 0


def test_a_module_that_is_gone(where):
    (where / "old.py").write_text("")
    edit(where / "code_of_it.py", "import os", "import os, old")
    with running(where, preload="auto") as cluster:
        cluster.wait_each("ready", 3)
        edit(where / "code_of_it.py", "import os, old", "import os")
        (where / "old.py").unlink()
        assert cluster.reload()["ok"]
        assert len(imports(where)) == 3
        assert cluster.end() == 0


def test_what_is_imported_later(where):
    (where / "late.py").write_text(CODE.replace('"1"', '"late"'))
    (where / "server.py").write_text(LATE)
    with running(where, preload="auto", workers=1) as cluster:
        cluster.wait_for("ready")
        until(lambda: len(imports(where)) == 2 and len(molds(cluster)) == 1)
        assert cluster.reload()["ok"]  # for the scout's mold is gone
        get(cluster.port)
        assert imports(where)[-1][:2] == ["late", str(cluster.pids()[0])]
        assert cluster.reload()["ok"]
        before = len(imports(where))
        assert imports(where)[-1][0] == "late"
        assert imports(where)[-1][1] in map(str, molds(cluster))
        get(cluster.port)
        assert len(imports(where)) == before
        assert cluster.end() == 0


def test_names_beside_auto(where):
    """Nobody has to show anything first, and what the workers import further is preloaded, too."""
    (where / "server.py").write_text(LATE)
    (where / "late.py").write_text(CODE.replace('"1"', '"late"'))
    with running(where, preload="auto,code_of_it", workers=2) as cluster:
        cluster.wait_each("ready", 2)
        assert imports(where) == [["1", str(*molds(cluster)), "none"]]
        # Until the one that shows has been asked, too.
        until(lambda: get(cluster.port) and len({one[1] for one in imports(where)}) == 3)
        count = len(imports(where))
        assert cluster.reload()["ok"]
        of_mold = [one[0] for one in imports(where)[count:]]
        assert of_mold == ["1", "late"] and imports(where)[-1][1] in map(str, molds(cluster))
        get(cluster.port)
        assert len(imports(where)) == count + 2
        assert cluster.end() == 0


def test_a_name_beside_auto_must_be_there(where):
    with running(where, "--respawn", 0.1, preload="auto,code_of_it") as cluster:
        cluster.wait_each("ready", 3)
        (where / "code_of_it.py").unlink()
        outcome = cluster.reload()
        assert not outcome["ok"] and "No module named 'code_of_it'" in outcome["why"]


def test_what_children_import(where):
    """As gunicorn's do; the parent imports nothing."""
    (where / "server.py").write_text(FORKS)
    with running(where, preload="auto", workers=1) as cluster:
        cluster.wait_for("ready")
        get(cluster.port)
        until(lambda: len(imports(where)) == 3 and len(molds(cluster)) == 1)
        assert cluster.reload()["ok"]
        get(cluster.port)
        assert len(imports(where)) == 4
        assert cluster.end() == 0


def test_a_path_that_the_program_adds(where):
    """A module of that name is elsewhere, too."""
    vendor = where / "vendor"
    vendor.mkdir()
    (where / "code_of_it.py").rename(vendor / "code_of_it.py")
    (vendor / "colorsys.py").write_text("MINE = True")
    text = (where / "server.py").read_text()
    (where / "server.py").write_text(
        "import sys; sys.path.insert(0, 'vendor'); before = list(sys.path)\n"
        "import colorsys; assert colorsys.MINE\n" + text
    )
    with running(where, preload="auto") as cluster:
        cluster.wait_each("ready", 3)
        assert cluster.reload()["ok"]
        assert len(imports(where)) == 3
        assert cluster.end() == 0


def test_a_release_directory(apps):
    """A respawn has the old code though the link has gone on; a reload has the new."""
    releases = []
    for version in ("1", "2"):
        release = apps / f"release{version}"
        (release / "spaced").mkdir(parents=True)  # a namespace package
        (release / "spaced" / "inner.py").write_text(f"VERSION = {version!r}")
        (release / "server.py").write_text(
            "import json, os, sys\nsys.path.append(os.path.dirname(os.getcwd()))\n"
            "import spaced.inner\nfrom http_server import Handler, http\nimport http_server\n"
            "http_server.VERSION = spaced.inner.VERSION\n"
            'http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()\n'
        )
        releases.append(release)
    current = apps / "current"
    current.symlink_to(releases[0])
    options = ("--workers", 2, "--respawn", 0.1, "--preload", "auto", "--cwd", current)
    with Running(*options, "server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        (apps / "new").symlink_to(releases[1])
        (apps / "new").rename(current)
        os.kill(cluster.pids()[1], signal.SIGKILL)
        cluster.wait_for("exit", slot=1)
        cluster.wait_for("ready", slot=1)
        assert {get(cluster.port)["version"] for _ in range(20)} == {"1"}
        assert cluster.reload()["ok"]
        assert {get(cluster.port)["version"] for _ in range(20)} == {"2"}
        assert cluster.end() == 0


def test_an_editable_install(where):
    """A finder that an interpreter gets when it starts."""
    hidden = where / "hidden"
    hidden.mkdir()
    (where / "code_of_it.py").rename(hidden / "code_of_it.py")
    site = where / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\nfrom importlib.util import spec_from_file_location\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return spec_from_file_location(name, {str(hidden / 'code_of_it.py')!r})"
        " if name == 'code_of_it' else None\n"
        "sys.meta_path.append(Finder)\n"
    )
    with running(where, "--env", f"PYTHONPATH={site}", preload="auto") as cluster:
        cluster.wait_each("ready", 3)
        edit(hidden / "code_of_it.py", 'VERSION = "1"', 'VERSION = "2"')
        assert cluster.reload()["ok"]
        assert [one[0] for one in imports(where)] == ["1", "1", "2"]
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"2"}
        assert cluster.end() == 0


@pytest.mark.parametrize("form", ["file", "module"])
def test_the_main_module_runs_once_and_without_a_warning(form, where):
    words = ("server.py",) if form == "file" else ("-m", "server")
    options = ("--workers", 2, "--preload", "auto")
    with Running(*options, *words, "0", cwd=where) as cluster:
        cluster.wait_each("ready", 2)
        assert cluster.reload()["ok"]
        assert "Warning" not in cluster.stderr() and len(imports(where)) == 3
        assert cluster.end() == 0
