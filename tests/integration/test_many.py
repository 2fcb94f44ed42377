"""As many slots as there may be, and many addresses."""

import resource
import select
import signal
import socket
import time

import pytest
from clients import answers
from harness import Running

SOFT = 1024  # what most systems give
MANY = 100  # addresses: more than the engine tells of at once


def soft_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(SOFT, hard), hard))


@pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8192, reason="the hard limit is too low"
)
def test_256_slots_under_the_usual_limit(apps):
    """They serve, are reloaded, and see the limit that was before."""
    args = ("--workers", 256, "--boots", 64, "--drain-settle", 0.1, "reports_limit.py", "0")
    with Running(*args, cwd=apps, preexec_fn=soft_limit) as running:
        running.wait_each("ready", 256, timeout=120)
        assert {answer["limit"] for answer in answers(running.port, 50)} == {SOFT}
        assert running.reload(timeout=120)["ok"]
        assert len({answer["worker"] for answer in answers(running.port, 1000)}) > 128
        assert not [line for line in running.log() if "RLIMIT" in line]
        assert running.end(timeout=120) == 0


def test_no_address_is_lost_to_a_signal(apps):
    """One that comes while the engine waits for more of what it has to tell."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Running("--workers", 2, "many_addresses.py", port, MANY, cwd=apps) as running:
        running.wait_each("online", 2)
        until = time.monotonic() + 60
        while running.count("ready") < 2:
            assert time.monotonic() < until
            for _ in range(50):
                running.process.send_signal(signal.SIGUSR1)
                select.select([], [], [], 0.0003)
        for pid in running.pids().values():  # one before it may have died of the signal
            assert running.count("listening", pid=pid) == MANY


def test_each_of_many_addresses_is_told_of_once_and_before_the_worker_is_ready(apps):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Running("--workers", 2, "many_addresses.py", port, MANY, cwd=apps) as running:
        running.wait_each("ready", 2, generation=1)
        assert running.reload()["ok"]
        running.count("listening")
        told = {}
        for event in running.seen:
            slot, generation = event.get("slot"), event.get("generation")
            if event["event"] == "listening":
                told.setdefault((slot, generation), []).append(event["address"])
            elif event["event"] == "ready":
                assert len(told[slot, generation]) == MANY
        assert sorted(told) == [(0, 1), (0, 2), (1, 1), (1, 2)]
        addresses = set(told[0, 1])
        assert len(addresses) == MANY
        assert all(len(one) == MANY and set(one) == addresses for one in told.values())
        assert not [event for event in running.seen if event["event"] == "shared"]
