"""prometheus_client's multiprocess mode, as docs/metrics.md has it: the dead do not count."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from clients import get
from harness import ENVIRONMENT, GENEROUS, Pidfd, descendants, free_port, until
from prometheus_client.parser import text_string_to_metric_families

EXAMPLE = Path(__file__).parents[2] / "examples" / "prometheus_multiprocess.py"


def values(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=GENEROUS) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_dead_are_marked(apps, tmp_path):
    ours, theirs = free_port(), free_port()
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "gauge_livesum_1.db").write_bytes(b"of a run before")
    environment = {**ENVIRONMENT, "PROMETHEUS_MULTIPROC_DIR": str(folder), "RECLUSTER_WORKERS": "2"}
    program = subprocess.Popen(
        [sys.executable, EXAMPLE, f"127.0.0.1:{ours}", "counts_requests.py", str(theirs)],
        cwd=apps, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert {program.stdout.readline() for _ in range(2)} == {"0\n", "1\n"}
        until(lambda: values(ours).get("app_workers") == 2)

        def serves():
            try:
                return get(theirs)
            except ConnectionRefusedError:
                return None

        until(serves)
        for _ in range(9):
            victim = get(theirs)["pid"]
        assert values(ours)["app_requests_total"] == 10
        dead = Pidfd(victim)
        dead.signal(signal.SIGKILL)
        assert dead.is_dead(GENEROUS)
        dead.close()
        assert program.stdout.readline() in ("0\n", "1\n")  # its successor
        # Of the successor's own gauge is 1; the dead one's is not left.
        until(lambda: values(ours)["app_workers"] == 2)
        left = {name for name in os.listdir(folder) if str(victim) in name}
        assert not any("live" in name for name in left) and left, "counters of the dead stay"
        assert values(ours)["app_requests_total"] == 10
        workers = [Pidfd(pid) for pid in descendants(program.pid)]
        program.send_signal(signal.SIGTERM)
        assert program.wait(GENEROUS) == 0
        for worker in workers:
            assert worker.is_dead(GENEROUS)
            worker.close()
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
