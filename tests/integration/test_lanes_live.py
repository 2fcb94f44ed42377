"""What waits in a lane is never lost; who must not get connections gets none.

The numbers are those of the project's list of failure modes.
"""

import importlib.util
import os
import shutil
import signal

import pytest
from clients import Load, all_answer, answered, answers, queue, read_all
from harness import Pidfd, Running, bind_again, descendants, stop

QUEUED = 200
FAST = ("--respawn", 0, "--timeout", 20, "--drain-settle", 0.2)
SERVERS = {
    "http_server": ("sys", "http_server.py 0"),
    "asyncio": ("sys", "asyncio_server.py 0"),
    "uvloop": ("uvloop", "-m uvicorn --loop uvloop --log-level error --port 0 asgi_app:app"),
    "gunicorn": ("gunicorn", "-m gunicorn -w 2 -b 127.0.0.1:0 wsgi_app:app"),
    "node": ("node", "-- node node_server.js 0"),
}


@pytest.fixture(params=SERVERS)
def command(request):
    needs, args = SERVERS[request.param]
    if not (shutil.which(needs) or importlib.util.find_spec(needs)):
        pytest.skip(f"{needs} is not installed")
    return args.split()


def test_killed_with_a_full_queue(command, apps):
    """Failure mode 2: kill -9, twice; the second time the successor has listened itself."""
    with Running("--workers", 1, *FAST, *command, cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        for _ in range(2):
            stop(pid)  # it forks no more
            family = [pid, *descendants(pid)]
            for member in family[1:]:
                stop(member)
            waiting = queue(running.port, QUEUED)
            os.kill(pid, signal.SIGKILL)
            pid = running.wait_for("ready")["pid"]
            served = read_all(waiting)
            assert len(served) == QUEUED
            assert not {answer["pid"] for answer in served} & set(family)
        assert running.count("online") == 3  # the successors, and nobody beside them
        assert running.end() == 0


def test_a_dead_worker_gets_nothing_new_while_another_lives(apps):
    """And what waits for it when all ends is served before."""
    args = ("--workers", 2, "--respawn", 1000, "--drain-settle", 0.2, "asyncio_server.py", "0")
    with Running(*args, cwd=apps) as running:
        running.wait_each("ready", 2)
        dead = running.pids()[0]
        stop(dead)
        prompt, waiting = answered(queue(running.port, 60), 1.0)
        assert prompt and waiting
        os.kill(dead, signal.SIGKILL)
        running.wait_for("exit", pid=dead)
        assert {answer["worker"] for answer in answers(running.port, 60)} == {"1"}
        running.signal(signal.SIGTERM)
        served = read_all(prompt + waiting)
        assert len(served) == 60 and dead not in {answer["pid"] for answer in served}
        assert running.wait() == 0


def test_a_hung_worker_keeps_what_it_has(apps):
    """Failure mode 5: what is queued on it is served when it goes on."""
    with Running("--workers", 2, *FAST, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        hung = running.pids()[0]
        stop(hung)
        prompt, waiting = answered(queue(running.port, 60), 1.0)
        assert {answer["worker"] for answer in read_all(prompt)} == {"1"}
        os.kill(hung, signal.SIGCONT)
        assert {answer["pid"] for answer in read_all(waiting)} == {hung}
        assert running.end() == 0


def test_a_hung_worker_is_replaced_by_a_reload(apps):
    """Failure mode 5: what is queued on it is served after it is killed at its timeout."""
    options = ("--workers", 2, "--timeout", 1, "--drain-settle", 0.2, "--respawn", 0)
    with Running(*options, "asyncio_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        hung = running.pids()[0]
        stop(hung)
        waiting = queue(running.port, 60)
        assert running.reload()["ok"]
        assert running.wait_for("exit", pid=hung)["signal"] == "SIGKILL"
        served = read_all(waiting)
        assert len(served) == 60 and hung not in {answer["pid"] for answer in served}
        assert running.end() == 0


def test_a_second_instance_gets_nothing(apps):
    """Failure mode 14: it is told that the address is in use."""
    with Running("--workers", 2, *FAST, "http_server.py", "0", cwd=apps) as first:
        first.wait_each("ready", 2)
        own = set(first.pids().values())
        with Load(first.port, clients=4) as load:
            args = ("--workers", 2, "--respawn", 0.1, "--give-up", 2, "http_server.py", first.port)
            with Running(*args, cwd=apps) as second:
                assert second.wait() == 1
                assert second.count("listening") == second.count("ready") == 0
                assert "Address already in use" in second.stderr()
            load.more(50)
        assert load.failures() == []
        assert {answer.facts["pid"] for answer in load.answers} == own
        with pytest.raises(OSError):
            bind_again(first.port)
        assert first.end() == 0
        bind_again(first.port)


def test_children_die_with_their_worker(apps):
    """Failure mode 27: those that hold its listening socket."""
    with Running("--workers", 2, *FAST, "forks_children.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        worker = running.pids()[0]
        child = Pidfd(running.wait_for("message", slot=0)["message"]["child"])
        with Load(running.port, clients=4) as load:
            load.more(20)
            os.kill(worker, signal.SIGKILL)
            assert child.is_dead(10)
            running.wait_for("ready", slot=0)
            load.more(20)
        assert len(load.failures()) <= 1  # what the killed one had accepted
        child.close()
        all_answer(running.port, {"0", "1"}, by=("worker",))
        assert running.end() == 0


def test_children_that_left_the_group_hold_nothing_up(apps):
    """Failure mode 27: they keep the old lanes open: these never get a connection again."""
    args = ("--workers", 2, *FAST, "forks_children.py", "0", "own-session")
    strays = []
    with Running(*args, cwd=apps) as running:
        try:
            for generation in (1, 2, 3):
                running.wait_each("ready", 2, generation=generation)
                messages = running.wait_each("message", 2, generation=generation)
                strays += [Pidfd(event["message"]["child"]) for event in messages.values()]
                if generation < 3:
                    before = running.pids()
                    assert running.reload()["ok"]
                    for pid in before.values():
                        running.wait_for("exit", pid=pid)
            current = set(running.pids().values())
            all_answer(running.port, current)
            assert running.end() == 0
        finally:
            for stray in strays:
                stray.signal(signal.SIGKILL)
                stray.close()
