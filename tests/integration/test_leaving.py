"""Workers that stop listening, serve their quota or say so: replaced first, nothing lost.

And an address that nobody serves any more, failure mode 37.
"""

import errno
import importlib.util
import os
import select
import signal
import socket
import time

import pytest
from clients import Broken, Load, answers, connect, get, read_answer, send_request
from harness import Running, edit, free_port, let_go
from procnet import hold_each

FAST = ("--respawn", 0, "--drain-settle", 0.2)
GIVES_UP = "stops_listening.py"
HOLD = 'if os.path.exists("hold"): open("hold").read()\n'


def is_new(*old):
    return lambda event: event["pid"] not in old


def is_old(*old):
    return lambda event: event["pid"] in old


def check_order(running, old, new):
    """The successor was ready before the old one ended."""
    seen = [(event["event"], event.get("pid")) for event in running.seen]
    assert seen.index(("ready", new)) < seen.index(("exit", old))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("path, says", [("/close", "deaf"), ("/disconnect", "disconnect")])
def test_a_worker_that_closes_its_listener_is_replaced_first(apps, path, says, workers):
    """It lives on; what is queued in its lane meanwhile is its successor's."""
    with Running("--workers", workers, *FAST, GIVES_UP, "0", cwd=apps) as running:
        first = {event["pid"] for event in running.wait_each("ready", workers).values()}
        with Load(running.port, clients=8) as load:
            load.more(100)
            old = get(running.port, path)["pid"]
            assert running.wait_for(says)["pid"] == old
            new = running.wait_for("ready", where=is_new(*first))["pid"]
            load.more(100)
            assert running.wait_for("exit", pid=old)["code"] == 0
            load.more(100)
        assert load.failures() == []
        check_order(running, old, new)
        assert running.count("online") == workers + 1
        assert set(running.pids().values()) == {new, *first - {old}}
        assert old not in {answer["pid"] for answer in answers(running.port, 20)}
        assert running.end() == 0


def test_its_queue_is_its_successor_s_while_it_still_answers(apps):
    """The only worker closes its listener with a request under way. What comes then
    waits for the next one, which takes long to begin; nothing is in a hurry."""
    edit(apps / GIVES_UP, "asyncio.run(", HOLD + "asyncio.run(")
    with Running("--workers", 1, *FAST, GIVES_UP, "0", cwd=apps) as running:
        old = running.wait_for("ready")["pid"]
        os.mkfifo(apps / "hold")
        waiting = []
        with connect(running.port) as slow:
            send_request(slow, "/wait")
            while not running.count("deaf"):  # some may still be the old one's
                waiting.append(connect(running.port))
                send_request(waiting[-1])
                select.select([waiting[-1]], [], [], 0.05)
            running.wait_for("online", where=is_new(old))
            late = [connect(running.port) for _ in range(50)]
            for connection in late:
                send_request(connection)
            assert running.count("exit") == running.count("ready") - 1 == 0
            let_go(apps / "hold")
            new = running.wait_for("ready", where=is_new(old))["pid"]
            for connection in late:
                with connection:
                    assert read_answer(connection)["pid"] == new
            for connection in waiting:
                with connection:
                    assert read_answer(connection)["pid"] in (old, new)
            assert read_answer(slow)["pid"] == old
        assert running.wait_for("exit", pid=old)["code"] == 0
        check_order(running, old, new)
        assert running.end() == 0


def test_a_listener_that_is_shut_down_is_noticed_by_itself(apps):
    """The kernel resets its queue, which is the server's own doing; nothing else fails."""
    with Running("--workers", 2, *FAST, GIVES_UP, "0", cwd=apps) as running:
        first = {event["pid"] for event in running.wait_each("ready", 2).values()}
        with Load(running.port, clients=8) as load:
            load.more(100)
            old = get(running.port, "/shutdown")["pid"]
            told = running.wait_for("deaf")
            assert told["pid"] == old and told["address"] == f"127.0.0.1:{running.port}"
            new = running.wait_for("ready", where=is_new(*first))["pid"]
            running.wait_for("exit", pid=old)
            load.more(100)
        assert [one for one in load.failures() if not isinstance(one.error, Broken)] == []
        assert [one for one in load.failures() if one.began >= told["seen"]] == []
        check_order(running, old, new)
        assert running.end() == 0


def test_one_of_two_addresses_is_enough(apps):
    with Running("--workers", 2, *FAST, GIVES_UP, "0", "0", cwd=apps) as running:
        first = {event["pid"] for event in running.wait_each("ready", 2).values()}
        texts = {running.wait_for("listening", slot=0)["address"] for _ in range(2)}
        running.wait_for("listening", slot=1), running.wait_for("listening", slot=1)
        ports = {int(text.rpartition(":")[2]) for text in texts}
        with Load(min(ports), clients=4) as one, Load(max(ports), clients=4) as two:
            started = time.monotonic()
            while time.monotonic() < started + 1.1:  # what is closed before is part of its start
                one.more(10)
            old = get(min(ports), "/close")["pid"]
            assert running.wait_for("deaf")["pid"] == old
            new = running.wait_for("ready", where=is_new(*first))["pid"]
            running.wait_for("exit", pid=old)
            one.more(50), two.more(50)
        assert one.failures() == two.failures() == []
        check_order(running, old, new)
        assert running.end() == 0


def test_a_server_that_listens_anew_keeps_its_lane(apps):
    """Else half of its connections would wait in the old one, and nobody accept."""
    with Running("--workers", 1, *FAST, GIVES_UP, "0", cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        running.wait_for("listening")
        for _ in range(3):
            assert get(running.port, "/again")["pid"] == pid
            running.wait_for("listening", pid=pid)
            assert {answer["pid"] for answer in answers(running.port, 20)} == {pid}
        assert running.count("online") == 1
        assert running.end() == 0


# ---- servers with a quota ----------------------------------------------------------------


def needs(module):
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is not installed")


def uvicorn(running_loop, port):
    options = f"--loop {running_loop} --http h11 --log-level critical --limit-max-requests 300"
    return "-m", "uvicorn", *options.split(), "--port", port, "asgi_counting:app"


def check_losses(running, load):
    """Nothing fails but what uvicorn has accepted and itself closes unanswered."""
    failures = load.failures()
    assert all(isinstance(one.error, Broken) for one in failures)
    assert len(failures) <= running.count("message", message="dropped")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_s_quota_under_load(apps, loop):
    """It closes its listener, answers what it has and ends, again and again."""
    needs("uvicorn")
    needs(loop)
    with Running("--workers", 3, *FAST, *uvicorn(loop, free_port()), cwd=apps) as running:
        running.wait_each("ready", 3)
        with Load(running.port, clients=8) as load:
            for _ in range(6):
                # By itself, or by the signal that it ends itself with again.
                assert running.wait_for("exit")["signal"] in (None, "SIGTERM")
            load.more(100)
        check_losses(running, load)
        assert running.end() == 0


def test_uvicorn_is_replaced_first_while_it_still_answers(apps):
    needs("uvicorn")
    (apps / "hold").touch()
    command = uvicorn("asyncio", free_port())
    with Running("--workers", 2, *FAST, *command, cwd=apps) as running:
        first = {event["pid"] for event in running.wait_each("ready", 2).values()}
        slow = hold_each(running.port, first)
        for connection in slow:
            send_request(connection, "/slow")
        with Load(running.port, clients=8) as load:
            for old in [running.wait_for("deaf", where=is_old(*first)) for _ in range(2)]:
                running.wait_for("ready", where=is_new(*first), slot=old["slot"])
            assert not any(running.count("exit", pid=pid) for pid in first)
        check_losses(running, load)
        (apps / "hold").unlink()
        for connection in slow:
            with connection:
                assert read_answer(connection)["pid"] in first
        for pid in first:  # by itself, or by the signal that it ends itself with again
            assert running.wait_for("exit", pid=pid)["signal"] in (None, "SIGTERM")
        assert running.end() == 0


QUOTAS = {
    "gunicorn": "--no-control-socket -w 2 --max-requests 100 -b 127.0.0.1:0 wsgi_app:app",
    "gunicorn gthread": "--no-control-socket -k gthread -w 2 --max-requests 100 "
    "-b 127.0.0.1:0 wsgi_app:app",
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_server_that_replaces_its_own_processes_is_left_to_it(apps, name):
    """Its parent holds the lane all the time. (So does hypercorn's, but that cancels
    requests when a process has served its quota.)"""
    module, *_ = name.split()
    needs(module)
    command = ("-m", module, *QUOTAS[name].split())
    with Running("--workers", 2, *FAST, *command, cwd=apps) as running:
        running.wait_each("ready", 2)
        with Load(running.port, clients=8) as load:
            pids = set()
            while len(pids) < 12:  # four at a time
                load.more(50)
                pids = {answer.facts["pid"] for answer in load.answers if answer.facts}
        assert running.count("deaf") == running.count("exit") == 0
        assert load.failures() == []
        assert running.end() == 0


# ---- 37: nobody ------------------------------------------------------------------------


def waits(connection, seconds):
    """Whether a connect that was begun is neither done nor refused."""
    if select.select([], [connection], [], seconds)[1]:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        return False
    return True


def test_37_an_address_without_any_worker_does_not_look_alive(apps):
    """The server crashes at each start. What was queued before is served in the end."""
    fails_if_told = 'if os.path.exists("broken"): sys.exit(1)\nVERSION ='
    edit(apps / "http_server.py", "VERSION =", fails_if_told)
    options = ("--workers", 2, "--respawn", 0.2, "--backoff", 0, "--hold", 1)
    with Running(*options, "http_server.py", "0", cwd=apps) as running:
        pids = {event["pid"] for event in running.wait_each("ready", 2).values()}
        port = running.port
        (apps / "broken").touch()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            running.wait_for("exit", pid=pid)
        early = [connect(port) for _ in range(20)]
        told = running.wait_for("hold")
        assert told["held"] and told["address"] == f"127.0.0.1:{port}"
        with socket.socket() as late:
            late.setblocking(False)
            assert late.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
            assert waits(late, 0.5)
            for _ in range(4):
                running.wait_for("exit", code=1)
            (apps / "broken").unlink()
            running.wait_for("ready", where=is_new(*pids))
            assert not running.wait_for("hold")["held"]
            late.setblocking(True)
            assert not waits(late, 10)  # its SYN came again
            for connection in [*early, late]:
                send_request(connection)
            for connection in [*early, late]:
                with connection:
                    assert read_answer(connection)["version"] == "1"
        assert sum("nobody has listened" in line for line in running.log()) == 1
        assert running.end() == 0


def test_37_not_while_the_first_ones_start(apps):
    edit(apps / "http_server.py", "VERSION =", HOLD + "VERSION =")
    os.mkfifo(apps / "hold")
    with Running("--workers", 1, "--hold", 0.1, "http_server.py", "0", cwd=apps) as running:
        running.wait_for("online")
        let_go(apps / "hold")
        running.wait_for("ready")
        assert running.count("hold") == 0
        assert running.end() == 0
