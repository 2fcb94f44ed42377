"""Nobody takes what is steered to a lane: one worker hangs, or a group has none at all.

The numbers are those of the project's list of failure modes.
"""

import os
import select
import signal
import socket
import time

import pytest
from clients import GENEROUS, answers, connect, get, is_quiet, read_all, read_answer, send_request
from harness import Running, edit, let_go, stop, until

FAST = ("--respawn", 0, "--drain-settle", 0.2)

# ---- one hangs -----------------------------------------------------------------------


def ask_until_avoided(running, hung, waiting, most=3000, enough=100):
    """Connections one after the other until so many in a row are answered by somebody
    else: how many there were in all. `waiting` gets those that are not answered."""
    count = row = 0
    while row < enough:
        count += 1
        assert count <= most, f"{len(waiting)} of {count} went to the worker that hangs"
        connection = connect(running.port)
        send_request(connection)
        came = until(
            lambda connection=connection: (
                select.select([connection], [], [], 0.05)[0]
                or running.lanes()[hung]["queued"] > len(waiting)
            )
        )
        if isinstance(came, list):
            with connection:
                assert read_answer(connection)["pid"] != hung
            row += 1
        else:
            waiting.append(connection)
            row = 0
    return count


@pytest.mark.parametrize("how", ["stopped", "blocked"])
@pytest.mark.parametrize("end", ["resumes", "replaced"])
def test_a_hung_worker_is_avoided(how, end, apps):
    """Failure mode 5: new connections go elsewhere, and those already queued are served."""
    os.mkfifo(apps / "go")
    with Running("--workers", 2, *FAST, "blocks_loop.py", "0", "go", cwd=apps) as running:
        running.wait_each("ready", 2)
        pids, blocker = running.pids(), None
        if how == "stopped":
            hung = pids[0]
            stop(hung)
        else:
            blocker = connect(running.port)
            send_request(blocker, "/block")
            hung = running.wait_for("message", message="blocks")["pid"]
        # Chance would give it a half. What it gets comes before it is seen to stand still,
        # and while the other one seems to as well.
        waiting = []
        count = ask_until_avoided(running, hung, waiting)
        assert len(waiting) < count / 4, (len(waiting), count)
        if waiting:  # one that is avoided from the first is not asked, and does not hang
            running.wait_for("hung", pid=hung)
            assert ask_until_avoided(running, hung, waiting) == 100
        if end == "resumes":
            if how == "stopped":
                os.kill(hung, signal.SIGCONT)
            else:
                let_go(apps / "go")
                with blocker:
                    assert read_answer(blocker)["pid"] == hung
            assert {answer["pid"] for answer in read_all(waiting)} <= {hung}
            # It takes, so it gets again.
            until(lambda: hung in {answer["pid"] for answer in answers(running.port, 10)})
        else:
            os.kill(hung, signal.SIGKILL)
            assert hung not in {answer["pid"] for answer in read_all(waiting)}
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


# ---- nobody is there -----------------------------------------------------------------


def is_accepted(port, seconds):
    """Whether a health check's connect comes through in that time."""
    with socket.socket() as client:
        client.settimeout(seconds)
        try:
            client.connect(("127.0.0.1", port))
        except (TimeoutError, ConnectionRefusedError):
            return False
        is_quiet(client, seconds)  # each accepted one takes a place in a queue
        return True


def test_a_group_without_a_worker_is_noticed(apps):
    """Failure mode 37: after 5 s a handshake is not accepted any more; before, all wait."""
    fails = 'if os.path.exists("broken"): sys.exit(1)\nVERSION ='
    edit(apps / "http_server.py", "VERSION =", fails)
    options = ("--workers", 2, "--respawn", 0.2, "--backoff", 1)
    with Running(*options, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        (apps / "broken").touch()
        old = running.pids()
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        dead = [running.wait_for("exit", pid=pid)["seen"] for pid in old.values()]
        early = [connect(running.port) for _ in range(10)]  # a crash is no reason to refuse
        for connection in early:
            send_request(connection)
        until(lambda: not is_accepted(running.port, 0.4))
        assert time.monotonic() - max(dead) > 4  # its beginning was no earlier
        assert not any(is_accepted(running.port, 0.4) for _ in range(3))  # and it lasts
        (apps / "broken").unlink()
        new = {event["pid"] for event in running.wait_each("ready", 2, timeout=60).values()}
        assert {answer["pid"] for answer in read_all(early)} <= new
        assert {get(running.port, timeout=GENEROUS)["pid"] for _ in range(40)} == new
        assert running.end() == 0
