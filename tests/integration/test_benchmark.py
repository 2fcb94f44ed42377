"""`python -m recluster.bench`: real clusters, a real load generator, small numbers."""

import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import replace

import pytest
from harness import ENVIRONMENT, GENEROUS

from recluster.bench import identify, measure
from recluster.bench.plan import WHOLE

WITHIN = 100.0


def bench(*words, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "recluster.bench", *map(str, words)],
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )


def test_quick_run_of_a_built_in_server(tmp_path):
    words = ["--quick", "--policies", "reuseport", "--json", "all.json", "--picture", "all.svg"]
    done = bench(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "all.json").read_text())
    (run,) = said["runs"]
    assert (run["server"], run["policy"], run["workers"]) == ("asyncio", "reuseport", 4)
    assert sum(run["short"]["counts"]) == 1000 and min(run["short"]["counts"]) > 0
    assert sum(run["long"]["counts"]) == 100
    assert run["short"]["failed"] == run["long"]["failed"] == run["tail"]["failed"] == {}
    assert run["tail"]["heavy"] > 0 and run["tail"]["light_ms"]["p50"] >= 1.0
    assert run["accept"]["per_second"] > 0 and run["accept"]["workers_us"] > 0
    assert run["stopped"]["requests"] > 0 and run["stopped"]["failures"] == 0
    assert run["killed"]["requests"] > 0
    assert said["advice"]["asyncio"]["policy"] == "reuseport"
    assert "asyncio: Use --balance reuseport: " in done.stdout
    assert "1000 short connections" in done.stdout
    assert "asyncio, reuseport, 4 workers: tail latency" in done.stderr, "no progress is shown"
    xml.etree.ElementTree.parse(tmp_path / "all.svg")


def test_a_server_of_ones_own_says_nothing_of_its_worker(apps, tmp_path):
    """The kernel is asked who has accepted."""
    words = [
        "--quick",
        "--policies",
        "reuseport",
        "--workers",
        "2",
        "--json",
        tmp_path / "all.json",
    ]
    done = bench(*words, apps / "asyncio_server.py", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "all.json").read_text())["runs"]
    assert sum(run["short"]["counts"]) == 1000 and run["short"]["unknown"] == 0
    assert min(run["short"]["counts"]) > 0
    assert sum(run["long"]["counts"]) == 100
    assert run["accept"]["per_second"] > 0
    assert "tail" not in run and "light requests" not in done.stdout, "nobody said what blocks"


@pytest.mark.parametrize(
    ("lags", "tries", "made", "best"),
    [([0.5], 3, 1, 0.5), ([9.0, 1.0], 3, 2, 1.0), ([9.0, 5.0, 7.0], 3, 3, 5.0), ([9.0], 1, 1, 9.0)],
)
def test_a_tail_is_measured_again_where_the_generator_was_late(
    monkeypatch, lags, tries, made, best
):
    found = iter([{"lag_ms": {"p99": lag}} for lag in lags])
    monkeypatch.setattr(measure, "tail", lambda target, plan: next(found))
    tail = measure.undisturbed_tail(None, replace(WHOLE, tail_tries=tries))
    assert tail == {"lag_ms": {"p99": best}, "tries": made}


def test_a_server_that_does_not_start(apps, tmp_path):
    done = bench(
        "--quick", "--policies", "reuseport", apps / "exits_at_once.py",
        cwd=tmp_path, env={"RECLUSTER_GIVE_UP": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "exits_at_once.py, reuseport, 4: " in done.stderr
    assert "There is nothing to recommend." in done.stdout


@pytest.mark.parametrize("way", ["netlink", "proc"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_has_accepted(way, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"there is no {host} here")
    with listener:
        listener.settimeout(GENEROUS)
        asked = identify.Identifier(listener.getsockname()[:2], {os.getpid(): "7"})
        if way == "proc":
            asked.netlink = None
        elif asked.netlink is None:
            pytest.skip("sock_diag is refused here")
        with socket.create_connection(listener.getsockname()[:2], GENEROUS) as client:
            name = client.getsockname()[:2]
            assert asked.find([name]) == {}, "it waits in the queue"
            server, _ = listener.accept()
            with server:
                assert asked.find([name]) == {name: "7"}
            assert asked.find([(host, 1)]) == {}
