"""Bad code, bad options: the old code serves on, the new is judged, nobody despairs."""

import re
import subprocess
import sys

import pytest
from clients import Load, answers
from harness import Running, edit, replace

FAST = ("--respawn", 0.1, "--timeout", 10, "--drain-settle", 0.2)


# ---- at reload -----------------------------------------------------------------------

BROKEN = {
    "syntax_error.py": "SyntaxError: ",
    "exits_at_once.py": "code 7",
    "never_listens.py": "listen",
}


@pytest.mark.parametrize("name", BROKEN)
def test_reload_of_broken_code_changes_nothing(name, apps):
    """Failure mode 21: not one error; the verdict has the last line of the traceback."""
    server = apps / "http_server.py"
    good = (apps / "http_server.py").read_text()
    # Long enough for the good code on a loaded machine, too.
    args = ("--workers", 2, "--ready-timeout", 5, *FAST, "http_server.py", "0")
    with Running(*args, cwd=apps) as running:
        running.wait_each("ready", 2)
        before = running.pids()
        with Load(running.port, clients=4) as load:
            replace(server, apps / name)
            outcome = running.reload()
            assert outcome["ok"] is False
            assert "worker" in outcome["why"]
            assert BROKEN[name] in outcome["why"]
            load.more(20)
        assert load.failures() == []
        assert {answer.facts["pid"] for answer in load.answers} <= set(before.values())
        assert sum("reload" in line for line in running.log()) >= 1

        server.write_text(good.replace('VERSION = "1"', 'VERSION = "2"'))
        assert running.reload()["ok"]
        assert {answer["version"] for answer in answers(running.port, 10)} == {"2"}
        assert running.end() == 0


def test_reload_fails_if_one_worker_of_many_fails(apps):
    server = apps / "http_server.py"
    with Running("--workers", 3, *FAST, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 3)
        before = running.pids()
        edit(server, "VERSION =", 'if os.environ["WORKER_ID"] == "1": sys.exit(9)\nVERSION =')
        outcome = running.reload()
        assert outcome["ok"] is False
        assert "worker 1" in outcome["why"] and "code 9" in outcome["why"]
        facts = answers(running.port, 60)
        assert {int(a["worker"]): a["pid"] for a in facts} == before
        assert running.end() == 0


# ---- without a reload ----------------------------------------------------------------


def test_crash_after_ready_is_replaced(apps):
    # It serves one connection, and that would be ours.
    options = ("--workers", 2, "--respawn", 0, "--backoff", 0, "--ready-when", "listening")
    with Running(*options, "crashes_after_ready.py", "0", cwd=apps) as running:
        first = running.wait_each("ready", 2)
        for _ in range(6):
            answer = answers(running.port, 1)[0]
            event = running.wait_for("exit", pid=answer["pid"])
            assert (event["code"], event["signal"]) == (None, "SIGABRT")
            assert event["slot"] == int(answer["worker"])
            running.wait_for("ready", slot=event["slot"])
        assert running.pids().keys() == first.keys()
        assert running.end() == 0


def test_pauses_grow(apps):
    options = ("--workers", 1, "--respawn", 0.1, "--backoff", 30, "--give-up", 7)
    with Running(*options, "exits_at_once.py", cwd=apps) as running:
        running.wait_for("online")
        pauses = []
        for _ in range(6):
            pauses.append(running.wait_for("exit")["next_try"])
            running.wait_for("online")
        assert running.wait() == 1
        # The first successor comes after `respawn`, then 0.1, 0.2 ... each within 20 %.
        assert all(one > 0.75 * 0.1 * 2**n for n, one in enumerate(pauses[1:])), pauses
        log = [
            float(found[1])
            for found in map(re.compile(r"in ([\d.]+) s").search, running.log())
            if found
        ]
        assert len(log) >= 5
        assert log == sorted(log) and log[-1] > 4 * log[1], log


def test_backoff_can_be_switched_off(apps):
    options = ("--workers", 1, "--respawn", 0, "--backoff", 0, "--give-up", 0)
    with Running(*options, "exits_at_once.py", cwd=apps) as running:
        for _ in range(25):  # two and a half times the usual --give-up
            running.wait_for("exit", code=7)
        assert running.end() == 0


@pytest.mark.parametrize("name", ["exits_at_once.py", "syntax_error.py"])
def test_gives_up(name, apps):
    options = ("--workers", 1, "--respawn", 0.01, "--give-up", 3)
    with Running(*options, name, cwd=apps) as running:
        assert running.wait() == 1
        assert running.count("online") == running.count("exit") == 3
        assert running.wait_for("end")["code"] == 1


def test_gives_up_on_what_never_listens(apps):
    options = ("--workers", 1, "--respawn", 0.01, "--ready-timeout", 0.2, "--give-up", 2)
    with Running(*options, "never_listens.py", cwd=apps) as running:
        assert running.wait() == 1
        assert running.count("ready") == 0


def test_once_ready_it_never_gives_up(apps):
    fails_if_told = 'if os.path.exists("broken"): sys.exit(1)\nVERSION ='
    edit(apps / "http_server.py", "VERSION =", fails_if_told)
    options = ("--workers", 1, "--respawn", 0, "--backoff", 0, "--give-up", 2)
    with Running(*options, "http_server.py", "0", cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        (apps / "broken").touch()
        subprocess.run(["kill", "-9", str(pid)], check=True)
        for _ in range(6):
            running.wait_for("exit", code=1)
        (apps / "broken").unlink()
        running.wait_for("ready")
        assert answers(running.port, 1)[0]["version"] == "1"
        assert running.end() == 0


# ---- usage ---------------------------------------------------------------------------

WRONG = {
    "no workers": ["--workers", "0", "exits_at_once.py"],
    "workers in words": ["--workers", "many", "exits_at_once.py"],
    "negative time": ["--timeout", "-1", "exits_at_once.py"],
    "unknown choice": ["--ready-when", "never", "exits_at_once.py"],
    "unknown door": ["--door", "window", "exits_at_once.py"],
    "unknown option": ["--no-such-option", "exits_at_once.py"],
    "missing FILE": ["no_such_file.py"],
    "missing COMMAND": ["--", "no-such-command"],
    "missing COMMAND by path": ["--", "./no-such-command"],
    "nothing to run": [],
    "-m without MODULE": ["-m"],
    "-- without COMMAND": ["--"],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_usage_errors_are_one_line_and_code_2(wrong, apps):
    done = subprocess.run(
        [sys.executable, "-m", "recluster", *WRONG[wrong]],
        cwd=apps,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("recluster: ")


def test_a_wrong_environment_variable_is_a_usage_error(apps):
    with Running("exits_at_once.py", cwd=apps, env={"RECLUSTER_WORKERS": "many"}) as running:
        assert running.wait() == 2
        assert "RECLUSTER_WORKERS" in running.stderr()
        assert len(running.stderr().splitlines()) == 1
