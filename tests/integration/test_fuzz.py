"""Whatever a worker or a client sends: the master lives, rests, and has what it had.

FUZZ_LINES says how many lines (.ci/run: 200,000 of each), FUZZ_SEED which.
"""

import json
import os
import random
import signal
import socket
from collections import Counter
from pathlib import Path

import fuzz
import pytest
from clients import get
from ctlcase import likely
from harness import GENEROUS, Running, comes_to_rest, kept, let_go, until

COUNT = int(os.environ.get("FUZZ_LINES", "5000"))
SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(1 << 32))
PATIENCE = GENEROUS + COUNT / 2000
OPTIONS = ("--workers", 2, "--respawn", 0.1, "--drain-settle", 0.1, "--drain-quiet", 0.1)

pytestmark = pytest.mark.timeout(120 + PATIENCE)


@pytest.fixture(autouse=True)
def seed(capsys):
    text = f"\nFUZZ_SEED={SEED} FUZZ_LINES={COUNT}"
    print(text)
    with capsys.disabled():
        print(text)
    return SEED


def descriptors(pid):
    """How many lead to what, but for their numbers."""
    return Counter(link.partition(":[")[0] for link in kept(pid))


def refused(constant):
    raise ValueError(f"{constant} is not JSON")


# ---- the channel ---------------------------------------------------------------------


def test_lines_of_a_worker(apps, tmp_path, seed):
    os.mkfifo(apps / "go")
    with open(tmp_path / "events", "wb") as events:
        where = str(Path(fuzz.__file__).parent)
        words = ("fuzzes_channel.py", "0", seed, COUNT, where, "go")
        options = ("--events", events.fileno(), *OPTIONS)
        with Running(*options, *words, cwd=apps, pass_fds=[events.fileno()]) as running:
            until(lambda: sum("ready after" in line for line in running.log()) == 2)
            running.signal(signal.SIGUSR2)  # what the first retirement opens stays open
            until(lambda: any("generation 2 serves" in line for line in running.log()))
            until(lambda: list(running.states().values()) == ["serving"] * 2)
            comes_to_rest(running.pidfd)
            before, old = descriptors(running.process.pid), list(running.states())
            port = int(running.status()["lanes"][0]["address"].rpartition(":")[2])

            let_go(apps / "go", b"go")
            until(lambda: any("asks to be replaced" in line for line in running.log()), PATIENCE)
            until(lambda: sum("ready after" in line for line in running.log()) == 5)
            until(lambda: list(running.states().values()) == ["serving"] * 2)
            assert len(set(old) & set(running.states())) == 1
            assert get(port)["version"] == "1"
            comes_to_rest(running.pidfd)
            assert not descriptors(running.process.pid) - before, "more than before"
            assert running.end() == 0
            assert not any("inside the master" in line for line in running.log())
    lines = (tmp_path / "events").read_bytes().splitlines()
    told = [json.loads(line, parse_constant=refused) for line in lines]
    assert sum(event["event"] == "message" for event in told) > COUNT / 10
    assert sum(event["event"] == "exit" for event in told) == 5
    assert not any(event["event"] == "lost" for event in told)


# ---- the control socket --------------------------------------------------------------

REQUESTS = [
    {"cmd": "status"},
    {"cmd": "reload", "wait": True, "canary": 2},
    {"cmd": "reload", "canary": "x"},
    {"cmd": "promote"},
    {"cmd": "rollback"},
    {"cmd": "weights", "weights": {"0": 1}},
]


def reloads(request):
    return isinstance(request, dict) and request.get("cmd") == "reload"


def a_reload(request):
    """It would be carried out: its canary is one, or there is none."""
    part = request.get("canary") if reloads(request) else 2
    return part is None or (not isinstance(part, str | list | dict) and 0 < part < 1)


def send(connection, data, chance):
    """The request, in one piece or two; or too little of it."""
    how = chance.randrange(20)
    if how == 0:
        data = data[: len(data) // 2]
    if how < 3:
        connection.sendall(data[: len(data) // 3])
        data = data[len(data) // 3 :]
    connection.sendall(data)


def test_lines_of_clients(apps, seed):
    chance = random.Random(seed)
    lines = fuzz.Lines(seed, REQUESTS, a_reload, longest=4096, long_ones=100)
    with Running(*OPTIONS, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        comes_to_rest(running.pidfd)
        before, old = descriptors(running.process.pid), running.pids()
        path = likely(running.process.pid)
        for line in lines.take(COUNT):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(GENEROUS)
                connection.connect(path)
                try:
                    send(connection, line + b"\n", chance)
                    connection.shutdown(socket.SHUT_WR)
                    if chance.randrange(20) == 0:
                        continue  # whoever asks need not listen
                    answer = b""
                    while piece := connection.recv(1 << 16):
                        answer += piece
                except ConnectionError:  # it was told before it had said all
                    continue
                assert not answer or type(json.loads(answer, parse_constant=refused)) is dict, line
        comes_to_rest(running.pidfd)
        assert not descriptors(running.process.pid) - before, "more than before"
        assert running.pids() == old
        assert running.count("exit") == running.count("reload") == 0
        assert not any("inside the master" in line for line in running.log())
        assert running.end(signal.SIGTERM) == 0
