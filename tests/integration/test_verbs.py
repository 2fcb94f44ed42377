"""`recluster VERB`: each against a real master, with its exit code."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from ctlcase import ask
from harness import ENVIRONMENT, GENEROUS, Pidfd, Running, edit, replace, stop, until
from verbcase import Masters


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


@pytest.fixture
def running(masters):
    with masters.start() as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


# ---- ls, and names -------------------------------------------------------------------


def test_ls_shows_each_master(masters, running):
    with masters.start("--name", "other") as other:
        other.wait_each("ready", 2)
        head, *rows = masters.asked("ls")
        assert head.split() == ["name", "pid", "addresses", "generation", "health"]
        assert [row.split() for row in rows] == [
            ["http_server", str(running.process.pid), f"127.0.0.1:{running.port}", "1", "ready"],
            ["other", str(other.process.pid), f"127.0.0.1:{other.port}", "1", "ready"],
        ]
        assert other.end() == 0
    assert [row["name"] for row in masters.listed()] == ["http_server"]


def test_ls_removes_what_a_dead_master_has_left_and_nothing_else(masters, running):
    with masters.start() as dead:
        dead.wait_each("ready", 2)
        assert {row["name"] for row in masters.listed()} == {"http_server", "http_server-2"}
        dead.process.kill()
        dead.wait()
        left = f"{dead.process.pid}.sock"
        assert {left, "http_server-2.sock"} <= set(os.listdir(masters.directory))
        (masters.directory / "notes.txt").touch()
        assert [row["pid"] for row in masters.listed()] == [running.process.pid]
        kept = {f"{running.process.pid}.sock", "http_server.sock", "notes.txt"}
        assert set(os.listdir(masters.directory)) == kept


def test_ls_without_masters(masters):
    assert masters.asked("ls") == ["no master of this user runs"]
    assert masters.listed() == []


def test_ls_tells_of_one_that_does_not_answer(masters, running):
    stop(running.process.pid)
    try:
        code, out, _ = masters.recluster("ls", "--timeout", "0.2")
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    assert code == 0 and "does not answer" in out[1]
    assert masters.listed()[0]["health"] == "ready"


def test_a_directory_that_others_may_write_to_is_not_trusted(masters, running):
    masters.directory.chmod(0o777)
    try:
        assert masters.listed() == []
        assert "no master of this user" in masters.refused("status", code=2)
    finally:
        masters.directory.chmod(0o700)


def test_the_name_of_a_master_that_died_is_free_again(masters):
    for _ in range(2):
        with masters.start("--name", "api") as one:
            one.wait_each("ready", 2)
            assert [row["name"] for row in masters.listed()] == ["api"]
            one.process.kill()
            one.wait()


def test_a_name_that_is_taken_gets_a_number_and_the_log_says_so(masters, running):
    with masters.start("--name", "http_server") as second:
        second.wait_each("ready", 2)
        assert [row["name"] for row in masters.listed()] == ["http_server", "http_server-2"]
        first_line, *more = second.log()
        assert "version" in first_line and "name http_server-2" in first_line, first_line
        assert any("another master is called http_server" in line for line in more)


def test_a_control_path_of_ones_own_is_found_by_name(masters, tmp_path):
    path = tmp_path / "elsewhere.sock"
    with masters.start("--control", path) as one:
        one.wait_each("ready", 2)
        assert masters.listed()[0]["control"] == str(path)
        assert masters.asked("status")[0].startswith(f"master {one.process.pid} (http_server)")
        assert masters.asked("health", "http_server") == ["ready 2 of 2 slots serve"]
        assert masters.asked("health", one.process.pid)
        assert one.end() == 0
    assert os.listdir(masters.directory) == []


def test_bad_names(masters):
    for name in ("42", "a/b", ".hidden", "-x", ""):
        code, _, err = masters.recluster(f"--name={name}", "http_server.py", "0")
        assert code == 2 and "name" in err[0]


# ---- which master ----------------------------------------------------------------------


def test_name_is_needed_only_among_several(masters, running):
    assert masters.asked("status")[0].startswith(f"master {running.process.pid} ")
    with masters.start("--name", "other") as other:
        other.wait_each("ready", 2)
        said = masters.refused("status", code=2)
        assert "several masters run" in said and "other" in said
        for word in ("other", other.process.pid):
            assert masters.asked("status", word)[0].startswith(f"master {other.process.pid} ")
        assert "no master is called 'x'" in masters.refused("status", "x", code=2)


def test_ctl_has_the_same_verbs(masters, running):
    code, out, err = ask(running.process.pid, "scale", 3)
    assert (code, out, err) == (0, ["scale: 3 slots"], [])
    running.wait_for("ready", slot=2)
    assert ask(running.process.pid, "health")[:2] == (0, ["ready 3 of 3 slots serve"])


# ---- status, health --------------------------------------------------------------------


def test_status_when_nothing_serves(masters):
    options = ("--respawn", 60, "--backoff", 60, "--give-up", 0)
    with masters.start(*options, target=("exits_at_once.py",), workers=1) as running:
        running.wait_for("exit", code=7)
        code, out, err = masters.recluster("status")
        assert (code, err) == (1, [])
        text = "\n".join(out)
        assert "slot 0: exited with code 7" in text and "next try in" in text
        slot = json.loads(masters.recluster("status", "--json")[1][0])["slots"][0]
        assert slot["restarts"] == 1 and slot["next_try"] > 0
        assert "exited with code 7" in slot["last_error"]["what"]


def test_status_tells_of_a_reload_that_failed(masters, running, apps):
    edit(apps / "http_server.py", "VERSION =", "import no_such_module\nVERSION =")
    assert masters.recluster("reload", "--wait")[0] == 1
    code, out, _ = masters.recluster("status")
    assert code == 0
    assert any(line.startswith("last reload failed") for line in out)


def test_health(masters, running):
    assert masters.asked("health") == ["ready 2 of 2 slots serve"]
    code, out, _ = masters.recluster("health", "--min-ready", 3)
    assert (code, out) == (1, ["degraded 2 of 3 slots serve"])
    masters.asked("drain", 1)
    assert masters.asked("health") == ["ready 1 of 1 slots serve"]


def test_health_is_down_when_nobody_serves_or_nobody_answers(masters):
    code, _, err = masters.recluster("health")
    assert code == 2 and "no master" in err[0]
    with masters.start("--give-up", 0, "--respawn", 60, target=("exits_at_once.py",)) as running:
        running.wait_for("exit", code=7)
        code, out, _ = masters.recluster("health")
        assert code == 2 and out[0].startswith("down 0 of 2")
        stop(running.process.pid)
        code, _, err = masters.recluster("health", "--timeout", "0.2")
        os.kill(running.process.pid, signal.SIGCONT)
        assert code == 2 and "did not answer" in err[0]


def test_health_is_down_from_the_moment_a_shutdown_is_asked_for(masters):
    with masters.start("--shutdown-delay", 60) as running:
        running.wait_each("ready", 2)
        masters.asked("stop")
        code, out, _ = masters.recluster("health")
        assert (code, out) == (2, ["down 2 of 2 slots serve, shutting down"])


@pytest.mark.parametrize(
    "words", [("--min-ready", "0"), ("--min-ready",), ("--timeout", "x"), ("a", "b"), ("--no",)]
)
def test_health_with_words_that_cannot_be(masters, words):
    code, out, err = masters.recluster("health", *words)
    assert (code, out, len(err)) == (2, [], 1)


def test_a_probe_imports_next_to_nothing(masters, running):
    """What takes long in 20 ms: these modules, not the question."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from recluster.verbs.entry import main\n"
        "assert main(['health']) == 0\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**ENVIRONMENT, **masters.env},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = done.stdout.splitlines()[-1].split()
    ours = {name for name in loaded if name.startswith("recluster")}
    assert ours == {
        "recluster", "recluster.verbs.entry", "recluster.verbs", "recluster.verbs.health",
        "recluster.control", "recluster.control.masters", "recluster.control.places",
    }  # fmt: skip
    slow = {"argparse", "asyncio", "collections", "enum", "json", "re", "socket", "typing"}
    assert not slow & set(loaded)


# ---- reload, promote, rollback, weights --------------------------------------------------


def test_reload(masters, running):
    assert masters.asked("reload", "http_server", "--wait")[-1].startswith(
        "reload: generation 2 serves"
    )
    assert masters.asked("reload") == ["reload: generation 3 is on its way"]
    assert running.wait_for("reload", generation=3)["ok"]


def test_canary_promote_and_rollback(masters, running):
    out = masters.asked("reload", "--wait", "--canary", "0.5")
    assert out == ["reload: generation 2 gets 0.5 of new connections"]
    assert masters.asked("rollback") == ["rollback: done"]
    assert not running.wait_for("reload", generation=2)["ok"]
    masters.asked("reload", "--wait", "--canary", "0.5")
    assert masters.asked("promote") == ["promote: done"]
    assert running.wait_for("reload", generation=3)["ok"]
    assert "no generation is on probation" in masters.refused("promote")


def test_weights(masters):
    with masters.start("--balance", "weighted") as running:
        running.wait_each("ready", 2)
        assert masters.asked("weights", "0=3") == ["weights: 0=3; 1 for other slots"]
        assert masters.asked("weights", "http_server", "1=2")
        assert masters.refused("weights", code=2).endswith("give SLOT=WEIGHT...")


# ---- slots -------------------------------------------------------------------------------


def test_scale(masters, running):
    assert masters.asked("scale", 3) == ["scale: 3 slots"]
    running.wait_for("ready", slot=2)
    assert masters.asked("scale", "http_server", 1) == ["scale: 1 slots"]
    running.wait_for("exit", slot=2)
    assert masters.refused("scale", "none", 2, code=2)
    for words in (("0",), ("x",), ()):
        masters.refused("scale", *words, code=2)


def test_restart_puts_the_successor_first(masters, running):
    before = running.pids()
    assert masters.asked("restart", 1) == ["restart: slot 1: a successor is on its way"]
    ready = running.wait_for("ready", slot=1)
    gone = running.wait_for("exit", slot=1)
    assert gone["pid"] == before[1] and ready["pid"] == running.pids()[1] != before[1]
    assert running.seen.index(ready) < running.seen.index(gone)
    assert running.pids()[0] == before[0]
    status = running.status()
    assert status["slots"][1]["restarts"] == 0  # it was asked for


def test_restart_loses_nothing_under_load(masters, running):
    answers = 0
    for slot in (0, 1):
        masters.asked("restart", slot)
        while not running.count("exit", slot=slot):
            with socket.create_connection(("127.0.0.1", running.port), GENEROUS) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.makefile("rb").read().startswith(b"HTTP/1.0 200")
                answers += 1
    assert answers > 0


def test_restart_tries_at_once_in_a_slot_that_pauses(masters, apps):
    options = ("--respawn", 60, "--give-up", 0)
    with masters.start(*options, target=("exits_at_once.py", "0"), workers=1) as running:
        running.wait_for("exit", code=7)
        replace(apps / "exits_at_once.py", apps / "http_server.py")
        masters.asked("restart", 0)
        running.wait_for("ready", slot=0)


def test_a_drained_slot_stays_empty_until_resume(masters, running):
    pid = running.pids()[1]
    masters.asked("drain", 1)
    assert running.wait_for("exit", slot=1)["pid"] == pid
    masters.asked("reload", "--wait")
    assert set(running.pids()) == {0}
    [_, slot] = running.status()["slots"]
    assert slot["drained"] and slot["workers"] == []
    assert any("drained" in line for line in masters.asked("status"))
    assert "it is drained" in masters.refused("restart", 1)
    assert "no other slot serves" in masters.refused("drain", 0)
    assert masters.asked("resume", 1) == ["resume: slot 1: a worker is on its way"]
    assert running.wait_for("ready", slot=1, generation=2)
    assert "it is not drained" in masters.refused("resume", 1)


def test_scaling_leaves_drained_slots_empty(masters, running):
    masters.asked("drain", 0)
    running.wait_for("exit", slot=0)
    assert "all that would be left are drained" in masters.refused("scale", 1)
    masters.asked("scale", 3)
    running.wait_for("ready", slot=2)
    assert set(running.pids()) == {1, 2}


def test_slots_that_cannot_be(masters, running):
    for verb in ("restart", "drain", "resume"):
        assert "slot 9" in masters.refused(verb, 9)
        for words in ((), ("x",), ("-1",), ("http_server", "0", "1")):
            masters.refused(verb, *words, code=2)


def test_not_while_workers_share_a_queue(masters):
    with masters.start("--balance", "shared") as running:
        running.wait_each("ready", 2)
        assert "balance shared" in masters.refused("restart", 0)
        assert "balance shared" in masters.refused("drain", 0)


def test_not_while_a_reload_is_under_way(masters, running, apps):
    replace(apps / "http_server.py", apps / "never_listens.py")
    masters.asked("reload")
    assert "a reload is under way" in masters.refused("restart", 0)
    assert "a reload is under way" in masters.refused("drain", 0)


# ---- stop --------------------------------------------------------------------------------


def test_stop_and_wait(masters, running):
    assert masters.asked("stop", "--wait") == ["stop: done"]
    assert running.wait() == 0
    assert "no master of this user" in masters.refused("stop", code=2)


def test_stop_is_graceful_and_now_is_not(masters, running):
    with socket.create_connection(("127.0.0.1", running.port)) as held:
        held.sendall(b"GET / HT")  # owes an answer: keeps its worker, and so the master
        until(lambda: sum(lane["queued"] for lane in running.status()["lanes"]) == 0)
        assert masters.asked("stop") == ["stop: on its way"]
        code, _, err = masters.recluster("stop", "--wait", "--timeout", "0.2")
        assert code == 1 and "has not ended" in err[0]
        assert masters.asked("stop", "--now", "--wait") == ["stop: done"]
        assert running.wait() == 0


# ---- a verb and a file --------------------------------------------------------------------


def test_a_file_that_is_called_as_a_verb(masters, apps):
    (apps / "ls").write_text((apps / "http_server.py").read_text())
    for words in (("./ls", "0"), ("run", "ls", "0"), ("run", "--", sys.executable, "ls", "0")):
        with (
            masters.start(target=words)
            if words[0] != "run"
            else started_by_run(masters, words) as one
        ):
            one.wait_for("ready")
    assert masters.asked("ls") == ["no master of this user runs"]


@contextlib.contextmanager
def started_by_run(masters, words):
    """`run` stands first, before the options."""

    class Run(Running):
        def _popen(self, command, **more):
            command.insert(command.index("recluster") + 1, "run")
            return super()._popen(command, **more)

    with Run(*words[1:], cwd=masters.apps, env=masters.env) as one:
        yield one


def test_a_master_that_dies_meanwhile_is_told_of(masters, running, apps):
    replace(apps / "http_server.py", apps / "never_listens.py")
    command = [sys.executable, "-m", "recluster", "reload", "--wait"]
    with subprocess.Popen(
        command, env={**ENVIRONMENT, **masters.env}, stderr=subprocess.PIPE, text=True
    ) as process:
        running.wait_each("online", 2, generation=2)
        running.process.kill()
        assert Pidfd(process.pid).is_dead(GENEROUS)
        assert process.wait() == 1 and "ended before" in process.stderr.read()
