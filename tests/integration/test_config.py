"""A master with a configuration file and env files: started by it, and reloaded with another."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest
from harness import Running, edit, free_port, until
from operations import Shell, blocks
from servicemanager import Manager
from verbcase import Masters

from recluster import Cluster, OptionError
from recluster.options import configfile, envfile

BASE = """\
target = "tells_environ.py"
args = ["0", "first"]
workers = 2
boots = 2
respawn = 0.1
drain_settle = 0.1

[env]
T_ONE = "1"
"""


@pytest.fixture
def file(apps):
    path = apps / "recluster.toml"
    path.write_text(BASE)
    return path


@pytest.fixture
def running(apps, file):
    with Running(cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


def told(cluster, *names):
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.port}/", timeout=30) as answer:
        found = json.load(answer)
    return tuple(found[name] for name in names or ("environ", "args"))


def configured(cluster):
    return [line for line in cluster.log() if "configuration: " in line]


def test_the_file_in_the_working_directory_says_it_all(running):
    assert len(running.pids()) == 2
    assert told(running) == ({"T_ONE": "1"}, ["first"])
    assert running.end() == 0


def test_a_reload_takes_what_has_changed_and_says_so_in_one_line(running, file):
    edit(file, "workers = 2", 'timeout = 7\nbalance = "source_ip"\nworkers = 3')
    edit(file, '"first"', '"second"')
    edit(file, 'T_ONE = "1"', 'T_TWO = "secret"')
    reload = running.reload()
    assert reload["ok"] and sorted(reload["verdicts"]) == ["0", "1", "2"]
    assert told(running) == ({"T_TWO": "secret"}, ["second"])
    assert len(running.status()["slots"]) == 3
    (line,) = configured(running)
    assert line.partition("configuration: ")[2] == (
        "changed: workers 2 -> 3, env (T_ONE, T_TWO), args 0 first -> 0 second, timeout 3600 -> 7, "
        "shutdown_timeout 30 -> 7; "
        "for a restart: balance auto -> source_ip"
    )
    edit(file, 'balance = "source_ip"\nworkers = 3', "workers = 1")
    assert running.reload()["ok"]
    running.wait_for("exit", slot=2, generation=3)
    assert configured(running)[1:] == [
        line for line in configured(running) if "changed: workers 3 -> 1" in line
    ]
    assert running.reload()["ok"]
    assert len(configured(running)) == 2


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("workers = 2", "workers = 'x'", "recluster.toml:3: workers: 'x' must be a whole number"),
        (
            "boots = 2",
            "boosts = 2",
            "recluster.toml:4: boosts: there is no such option; did you mean boots?",
        ),
        ("boots = 2", "boots = ", "recluster.toml:4: Invalid value"),
        ("boots = 2", "env_file = '.env'", ".env: No such file or directory"),
    ],
)
def test_a_broken_file_fails_the_reload_and_the_old_serves_on(running, file, old, new, why):
    pids = running.pids()
    edit(file, old, new)
    reload = running.reload()
    assert (reload["ok"], reload["changed"], reload["why"]) == (False, False, why)
    assert running.pids() == pids and told(running) == ({"T_ONE": "1"}, ["first"])
    edit(file, new, old)
    assert running.reload()["ok"]


def test_a_reload_that_fails_gives_nothing_of_its_options_to_the_old(running, file):
    pids = running.pids()
    edit(file, 'T_ONE = "1"', 'T_ONE = "2"\nT_FAILS = "yes"')
    edit(file, "workers = 2", "workers = 3")
    assert running.reload()["ok"] is False
    until(lambda: len(running.status()["slots"]) == 2)
    for slot, pid in pids.items():
        os.kill(pid, signal.SIGKILL)
        running.wait_for("exit", pid=pid)
        running.wait_for("ready", slot=slot, where=lambda event, old=pid: event["pid"] != old)
    assert {str(told(running)) for _ in range(10)} == {str(({"T_ONE": "1"}, ["first"]))}
    edit(file, '"2"\nT_FAILS = "yes"', '"3"')
    assert running.reload()["ok"] and told(running)[0] == {"T_ONE": "3"}
    assert len(running.status()["slots"]) == 3


def test_a_generation_that_is_preloaded_has_its_own_environment_and_arguments(apps, file):
    edit(file, "workers = 2", 'preload = ["decimal"]\nworkers = 1')
    with Running(cwd=apps) as cluster:
        cluster.wait_for("ready")
        assert told(cluster) == ({"T_ONE": "1"}, ["first"])
        edit(file, 'T_ONE = "1"', 'T_TWO = "2"')
        edit(file, '"first"', '"second"')
        assert cluster.reload()["ok"]
        assert told(cluster) == ({"T_TWO": "2"}, ["second"])
        edit(file, 'T_TWO = "2"', 'T_FAILS = "2"')
        assert not cluster.reload()["ok"]
        pid = told(cluster, "pid")[0]
        os.kill(pid, signal.SIGKILL)
        cluster.wait_for("exit", pid=pid)
        cluster.wait_for("ready", generation=2, where=lambda event: event["pid"] != pid)
        assert told(cluster) == ({"T_TWO": "2"}, ["second"])


def test_a_reload_that_is_superseded_leaves_the_newest_options(running, file, apps):
    edit(file, 'T_ONE = "1"', 'T_ONE = "2"')
    running.signal(signal.SIGUSR2)
    edit(file, 'T_ONE = "2"', 'T_ONE = "3"')
    running.signal(signal.SIGUSR2)
    running.wait_for("reload", ok=True, generation=3)
    assert told(running)[0] == {"T_ONE": "3"}


def test_env_files_are_read_anew_at_each_reload_and_are_below_env(apps):
    path = apps / ".env"
    path.write_text("export T_ONE=1\nT_TWO='from file'\nWEB_CONCURRENCY=9\n")
    words = ("-w", 1, "--env-file", ".env", "--env", "T_TWO=flag", "tells_environ.py", "0")
    with Running(*words, cwd=apps) as cluster:
        cluster.wait_for("ready")
        assert told(cluster)[0] == {"T_ONE": "1", "T_TWO": "flag"}
        edit(path, "T_ONE=1", "T_ONE=other\nT_THREE=3")
        assert cluster.reload()["ok"]
        assert told(cluster)[0] == {"T_ONE": "other", "T_TWO": "flag", "T_THREE": "3"}
        (line,) = configured(cluster)
        assert line.endswith("changed: env files (T_ONE, T_THREE)") and "other" not in line
        edit(path, "T_THREE=3", "T_THREE='3")
        why = ".env:2: T_THREE: there is something behind its closing quote"
        assert cluster.reload()["why"] == why
        assert told(cluster)[0]["T_THREE"] == "3"


def test_weights_and_pauses_change_with_the_generation(apps, file):
    file.write_text('target = "http_server.py"\nargs = ["0"]\nworkers = 2\nbalance = "weighted"\n')
    with Running(cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        edit(file, "workers = 2", "workers = 2\nweights = {1 = 0}")
        assert cluster.reload()["ok"]
        until(lambda: {told(cluster, "worker")[0] for _ in range(20)} == {"0"})


def test_what_was_scaled_by_hand_stays_unless_the_file_changes(running, file, masters):
    masters.env = {}
    masters.asked("scale", running.process.pid, 3)
    running.wait_for("ready", slot=2)
    edit(file, 'T_ONE = "1"', 'T_ONE = "2"')
    assert sorted(running.reload()["verdicts"]) == ["0", "1", "2"]
    edit(file, "workers = 2", "workers = 1")
    assert running.reload()["ok"]
    running.wait_for("exit", slot=2, generation=3)


# ---- which file, and for what --------------------------------------------------------


def test_a_file_for_another_program_is_not_used(apps, file):
    with Running("-w", 1, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_for("ready")
        assert any("names a program of its own: it is not used" in line for line in cluster.log())
        assert cluster.status()["slots"][0]["slot"] == 0 and len(cluster.pids()) == 1
    with Running("-c", "recluster.toml", "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)


def test_check_print_tells_where_each_value_is_from(masters, file):
    masters.env = {"RECLUSTER_TIMEOUT": "5"}
    lines = masters.asked("check", "--print", "--respawn", "3", "--env", "X=1")
    for line in (
        'target = "tells_environ.py"',
        "workers = 2  # recluster.toml:3",
        "respawn = 3  # command line",
        "timeout = 5  # RECLUSTER_TIMEOUT",
        "# backoff = 30",
        'env = {T_ONE = "1", X = "1"}  # command line, recluster.toml:8',
    ):
        assert line in lines
    none = masters.refused("check", "--print", "-c", "none", code=2)
    assert none.startswith("recluster: give a FILE.py") and none.endswith("(see --help)")
    file.write_text("workers = 2")
    why = ", for recluster.toml names no program either"
    assert masters.refused("-w", 3, code=2).endswith(why)
    file.write_text("wrokers = 2")
    assert "recluster.toml:1: wrokers: " in masters.refused("-w", 1, "http_server.py", code=2)
    assert "x.toml: No such file" in masters.refused("-c", "x.toml", "http_server.py", code=2)


def test_a_program_of_ones_own_names_its_file(apps, file):
    with pytest.raises(OptionError, match="target: give"):
        Cluster()  # nothing is looked for
    text = file.read_text().replace("tells_environ.py", str(apps / "tells_environ.py"))
    file.write_text(text)
    with Cluster(config=file, workers=1, args=iter(["0"])) as cluster:
        assert (cluster.options.workers, cluster.options.respawn) == (1, 0.1)
        edit(file, 'T_ONE = "1"', 'T_ONE = "2"')
        handle = cluster.reload()
        assert handle.wait(30) and handle.ok
        assert cluster.options.env == {"T_ONE": "2"} and cluster.options.args == ("0",)
        edit(file, "boots = 2", "boots = 0")
        handle = cluster.reload()
        assert handle.done and handle.why.endswith("boots: 0 must be a whole number of at least 1")


def test_reload_by_the_verb_tells_the_mistake_and_the_next_one_goes_well(running, file, masters):
    masters.env = {}
    edit(file, "workers = 2", "workers = 'x'")
    code, out, err = masters.recluster("reload", running.process.pid, "--wait")
    assert code == 1 and "recluster.toml:3: workers: 'x' must be a whole number" in "".join(
        out + err
    )
    assert "recluster.toml:3" in "".join(masters.recluster("status", running.process.pid)[1])
    edit(file, "workers = 'x'", "workers = 2")
    assert masters.recluster("reload", running.process.pid, "--wait")[0] == 0


def test_a_service_manager_hears_of_a_reload_that_a_broken_file_ends(apps, file, tmp_path):
    with (
        Manager(str(tmp_path / "notify")) as manager,
        Running(cwd=apps, env=manager.env()) as cluster,
    ):
        manager.has("READY")
        edit(file, "workers = 2", "workers = 'x'")
        cluster.signal(signal.SIGHUP)
        manager.has("RELOADING")
        assert "reload failed: recluster.toml:3: workers" in manager.has("READY")["STATUS"]


def test_what_an_interpreter_reads_at_its_start_may_come_with_a_reload(apps, tmp_path):
    """PYTHON... in an env file: such a worker is exec'd."""
    program = apps / "tells_environ.py"
    edit(program, "sys.argv[2:]", "[str(sys.flags.optimize)]")
    env = apps / ".env"
    env.write_text("")
    with Running("-w", 1, "--env-file", ".env", program.name, "0", cwd=apps) as cluster:
        cluster.wait_for("ready")
        assert told(cluster) == ({}, ["0"])
        env.write_text("PYTHONOPTIMIZE=2\n")
        assert cluster.reload()["ok"]
        assert told(cluster) == ({}, ["2"])
        env.write_text("")
        assert cluster.reload()["ok"]
        assert told(cluster) == ({}, ["0"])


# ---- docs/configuration.md -----------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_true(tmp_path):
    port = free_port()
    (tmp_path / "main.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b''})\n"
    )
    found = blocks("config", PAGE)
    with Shell(tmp_path, {'"8000"': f'"{port}"'}) as shell:
        for script in (one for one in found if one.kind == "script"):
            shell.write(tmp_path / script.file, shell.here(script.text))
        start, printed, reload = (one.text.strip() for one in found if one.kind == "run")
        shell.run(start)
        until(lambda: '"health": "ready"' in shell.run("recluster ls --json || true"))
        shell.run(printed)
        shown = (tmp_path / "shown.toml").read_text().splitlines()
        wanted = PAGE.read_text().partition("<!-- shown -->")[2].partition("<!-- end -->")[0]
        for line in wanted.strip().splitlines():
            assert line.strip() in shown
        assert "serves after" in shell.run(reload)
        assert "configured by recluster.toml" in shell.log()
        shell.run("recluster stop --wait")
    assert envfile.read([tmp_path / ".env"]) == {
        "NAME": "value",
        "QUOTED": "as it is, # too",
        "ESCAPED": 'a\nb\t"c" $',
    }
    for story in ("hooks", "recycling"):
        (block,) = blocks(story, PAGE)
        (tmp_path / "recluster.toml").write_text(block.text)
        assert configfile.read(str(tmp_path / "recluster.toml")).values
        assert Cluster(["true"], config=tmp_path / "recluster.toml").options.sources
