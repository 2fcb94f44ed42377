"""New code that starts badly, in four ways: four verdicts, and no client notices.

The numbers are those of the project's list of failure modes.
"""

import os

import pytest
from clients import Load, get
from harness import Running, let_go, replace

FAST = ("--workers", 2, "--respawn", 0.1, "--drain-settle", 0.2)


@pytest.fixture
def server(apps):
    """What the cluster runs; tests replace it."""
    (apps / "server.py").write_text((apps / "imports_late.py").read_text())
    return apps / "server.py"


def reload_under_load(running, meanwhile=lambda load: None):
    """(the reload's event, who answered in the meantime), and no failure."""
    with Load(running.port, clients=8) as load:
        load.more(50)
        running.signal(12)
        meanwhile(load)
        outcome = running.wait_for("reload")
        load.more(100)
    assert load.failures() == []
    return outcome, {answer.facts["pid"] for answer in load.answers}


def test_slow_boot(server, apps):
    """Failure mode 20: an import that takes long ends well, and nobody is asked before."""
    with Running(*FAST, "--boots", 2, "server.py", "0", "go", cwd=apps) as running:
        running.wait_each("ready", 2)
        old = set(running.pids().values())
        for slot in range(2):
            os.mkfifo(apps / f"go.{slot}")

        def wait_and_go(load):
            new = running.wait_each("online", 2, generation=2)
            load.more(500)
            assert not {answer.facts["pid"] for answer in load.answers} - old
            assert all(running.states()[event["pid"]] == "starting" for event in new.values())
            for slot in range(2):
                let_go(apps / f"go.{slot}")

        outcome, who = reload_under_load(running, wait_and_go)
        assert outcome["ok"] and outcome["why"] is None
        assert who == old | set(running.pids().values())
        verdicts = outcome["verdicts"].values()
        assert len(verdicts) == 2 and all(text.startswith("ready after ") for text in verdicts)
        assert running.end() == 0


BAD = {
    "never_ready": (
        "listens_then_ready.py",
        ("--ready-when", "ready", "--ready-timeout", 2),
        "was not ready within 2 s",
    ),
    "hangs_at_import": (
        "never_listens.py",
        ("--ready-timeout", 2),
        "never listened on 127.0.0.1:{port} within 2 s",
    ),
    "crashes_after_ready": ("crashes_later.py", ("--bake", 60), "was ended by signal 11 after"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_boot(name, server, apps):
    """Failure mode 20: never ready, hanging at import, crashing when it was ready."""
    file, options, why = BAD[name]
    with Running(*FAST, *options, "server.py", "0", "go", cwd=apps) as running:
        running.wait_each("ready", 2)
        old = running.pids()
        replace(server, apps / file)
        for slot in range(2):
            os.mkfifo(apps / f"go.{slot}")  # nobody ever writes there
        outcome, who = reload_under_load(running)
        assert outcome["ok"] is False
        assert why.format(port=running.port) in outcome["why"], outcome
        verdicts = [text for text in outcome["verdicts"].values() if not text.startswith("stopped")]
        if name != "crashes_after_ready":
            assert verdicts and all(why.format(port=running.port) in text for text in verdicts)
            assert who == set(old.values())
        assert any(why.format(port=running.port) in line for line in running.log())
        for event in [e for e in running.seen if e["event"] == "online" and e["generation"] == 2]:
            running.wait_for("exit", pid=event["pid"])
        assert {get(running.port)["pid"] for _ in range(20)} <= set(old.values())
        replace(server, apps / "imports_late.py")
        for slot in range(2):
            (apps / f"go.{slot}").unlink()
        if name != "crashes_after_ready":  # that would bake for a minute
            assert running.reload()["ok"]
        assert running.end() == 0
