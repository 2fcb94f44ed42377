"""What the log says when a program does what makes no sense in a cluster (R13, R14)."""

import os
import time

from clients import get
from harness import Running, free_port, until

FAST = ("--respawn", 0, "--drain-settle", 0.2)


def test_an_autoreloader_is_named(apps):
    """R13: all workers restart by themselves when a file changes."""
    (apps / "watched").touch()
    with Running(
        "--workers", 3, *FAST, "autoreloads.py", free_port(), "watched", cwd=apps
    ) as cluster:
        born = {slot: event["seen"] for slot, event in cluster.wait_each("ready", 3).items()}
        ended = {event["pid"] for event in cluster.seen if event["event"] == "ready"}
        port = cluster.port
        # Within a second of its birth a worker that listens anew is still at its start.
        until(lambda: get(port) and max(born.values()) + 1.2 < time.monotonic())
        os.utime(apps / "watched")
        until(lambda: [line for line in cluster.log() if "an autoreloader" in line])
        (line,) = [line for line in cluster.log() if "an autoreloader" in line]
        assert "all 3 workers stopped listening at once though no reload was asked" in line
        assert set(cluster.pids().values()) <= ended
        assert cluster.end() == 0


def test_a_check_of_the_port_is_guessed(apps):
    """R14: the verdict says what the program itself says at best in its own log."""
    words = ("checks_port.py", free_port())
    with Running("--workers", 1, *FAST, *words, cwd=apps) as cluster:
        cluster.wait_for("ready")
        outcome = cluster.reload()
        assert not outcome["ok"]
        assert "exited with code 70" in outcome["why"]
        assert "a check that its port is free, a pid file?" in outcome["why"]
        assert "WORKER_ID and RECLUSTER_GENERATION" in outcome["why"]
        assert cluster.end() == 0
