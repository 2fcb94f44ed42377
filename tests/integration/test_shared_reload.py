"""`--balance shared`, and a slot that goes dark in a reload: R4, though workers have one queue."""

import os
import signal

import pytest
from clients import Load, connect, read_answer, send_request
from harness import Running, edit, let_go, stop, until

OPTIONS = ("--workers", 3, "--boots", 3, "--balance", "shared", "--respawn", 0.1)


@pytest.fixture
def mixed(apps):
    """Slot 1's old worker was killed, and the new code's serves there, beside the old ones in
    0 and 2; in 0 another one of the new is ready, in 2 one boots. All with clients."""
    options = (*OPTIONS, "--drain-settle", 0.2)
    with Running(*options, "imports_late.py", "0", "go", cwd=apps) as running:
        running.wait_each("ready", 3)
        old = running.pids()
        os.mkfifo(apps / "go.2")
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2"')
        running.signal(signal.SIGUSR2)
        new = {slot: running.wait_for("ready", slot=slot, generation=2)["pid"] for slot in (0, 1)}
        new[2] = running.wait_for("online", slot=2, generation=2)["pid"]
        os.kill(old[1], signal.SIGKILL)
        running.wait_for("exit", pid=old[1])
        states = running.states()
        assert [states[new[slot]] for slot in range(3)] == ["ready", "serving", "starting"]
        assert running.count("reload") == 0
        with Load(running.port, clients=4) as load:
            load.until(lambda fresh: versions(fresh) == {"1", "2"})
            yield running, load, old, new
        assert not load.failures()
        assert running.end() == 0


def versions(answers):
    return {answer.facts["version"] for answer in answers if answer.facts}


def test_the_new_code_serves_in_a_dark_slot_before_the_cutover(mixed, apps):
    running, load, old, new = mixed
    let_go(apps / "go.2")
    assert running.wait_for("reload")["ok"]
    assert running.pids() == new
    load.until(lambda fresh: len(fresh) > 20 and versions(fresh) == {"2"})
    for slot in (0, 2):
        running.wait_for("exit", pid=old[slot])


def test_when_one_fails_all_of_the_new_code_leave_and_nobody_loses_an_answer(mixed):
    """Nor do clients of one that was ready, and accepted, though it was never said to serve."""
    running, load, old, new = mixed
    stop(new[1])  # what comes to the new code's queue comes to the other one
    held = [connect(running.port) for _ in range(30)]
    until(lambda: not any(lane["queued"] for lane in running.lanes().values()))
    os.kill(new[2], signal.SIGKILL)
    outcome = running.wait_for("reload")
    assert not outcome["ok"] and "slots 1 had generation 2 meanwhile" in outcome["why"]
    os.kill(new[1], signal.SIGCONT)
    states = running.states()
    assert {states[new[slot]] for slot in (0, 1)} <= {"settling", "draining"}
    assert {states[old[slot]] for slot in (0, 2)} == {"serving"}
    again = running.wait_for("ready", slot=1, generation=1)["pid"]
    for one in held:
        send_request(one)
    assert {read_answer(one)["pid"] for one in held} >= {new[0]}
    for slot in (0, 1):
        running.wait_for("exit", pid=new[slot])
    assert {running.states()[pid] for pid in (old[0], again, old[2])} == {"serving"}
    load.more(20)
