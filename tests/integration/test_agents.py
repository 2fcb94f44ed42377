"""Agents that an interpreter loads when it starts (.pth files, sitecustomize): what they have
registered with atexit runs in each worker, as in `python FILE`."""

import collections
import importlib.metadata
import os
import signal
import sys
import urllib.request
import venv
from pathlib import Path

import pytest
from harness import Running

import recluster

AGENT = """
import atexit, os
def flush():
    with open({log!r}, "a") as log:
        log.write(f"{{os.getpid()}}\\n")
atexit.register(flush)
"""
HOW = {
    "file": ["traced.py", "0"],
    "module": ["-m", "traced", "0"],
    "mold": ["--preload", "json", "traced.py", "0"],
    "exec'd": ["--env", "PYTHONHASHSEED=0", "traced.py", "0"],
}


@pytest.fixture
def site(apps, monkeypatch):
    """site-packages of a virtual environment, whose python the master then is."""
    venv.create(apps / "venv", with_pip=False, symlinks=True)
    (site,) = (apps / "venv/lib").glob("python3*/site-packages")
    (site / "recluster.pth").write_text(os.path.dirname(os.path.dirname(recluster.__file__)))
    monkeypatch.setattr(sys, "executable", str(apps / "venv/bin/python"))
    return site


def served_and_ended(running, workers=2):
    """Each has answered; the pids of the workers, which have ended by sys.exit."""
    running.wait_each("ready", workers)
    pids = {event["pid"] for event in running.seen if event["event"] == "ready"}
    for _ in range(40):  # at random: 2 ** -40 that one of two gets none
        urllib.request.urlopen(f"http://127.0.0.1:{running.port}/", timeout=30).read()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    ends = [event for event in running.seen if event["event"] == "exit"]
    assert [end["code"] for end in ends] == [0] * workers
    return pids


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("by", ["pth", "sitecustomize"])
def test_exit_handlers_of_agents_run_once_in_each_worker(by, how, apps, site):
    log = apps / "flushed"
    env = {}
    if by == "pth":
        (site / "agent.py").write_text(AGENT.format(log=str(log)))
        (site / "agent.pth").write_text("import agent\n")
    else:
        (apps / "agent").mkdir()
        (apps / "agent/sitecustomize.py").write_text(AGENT.format(log=str(log)))
        env = {"PYTHONPATH": str(apps / "agent")}
    with Running("--workers", 2, *HOW[how], cwd=apps, env=env) as running:
        pids = served_and_ended(running)
        master = running.process.pid
    counted = collections.Counter(map(int, log.read_text().split()))
    assert {pid: counted.pop(pid) for pid in (*pids, master)} == dict.fromkeys([*pids, master], 1)
    assert not counted or (how == "mold" and list(counted.values()) == [1])


@pytest.mark.parametrize("how", ["file", "mold"])
def test_coverage_of_forked_workers(how, apps, site):
    coverage = pytest.importorskip("coverage")
    (site / "there.pth").write_text(os.path.dirname(os.path.dirname(coverage.__file__)))
    (site / "start.pth").write_text("import coverage; coverage.process_startup()\n")
    (apps / "rc").write_text(f"[run]\ndata_file = {apps}/covered\nparallel = true\n")
    env = {"COVERAGE_PROCESS_START": str(apps / "rc")}
    with Running("--workers", 2, *HOW[how], cwd=apps, env=env) as running:
        pids = served_and_ended(running)
    text = (apps / "traced.py").read_text().splitlines()
    answered = text.index("        body = answer()") + 1
    found = {}
    for path in apps.glob("covered.*"):
        data = coverage.CoverageData(str(path))
        data.read()
        found[path.name] = data.lines(str(apps / "traced.py")) or []
    for pid in pids:
        (name,) = [name for name in found if f".pid{pid}." in name]
        assert answered in found[name]


def test_spans_of_opentelemetry_are_flushed(apps):
    """As `opentelemetry-instrument python -m recluster ...` starts it: sitecustomize in a
    folder of PYTHONPATH. The spans wait in a batch that only an exit handler sends."""
    agent = pytest.importorskip("opentelemetry.instrumentation.auto_instrumentation")
    try:
        importlib.metadata.version("opentelemetry-distro")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("opentelemetry-distro is not installed")
    env = {
        "PYTHONPATH": str(Path(agent.__file__).parent),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
    }
    out = apps / "out"
    with (
        open(out, "wb") as stdout,
        Running("--workers", 2, *HOW["file"], cwd=apps, env=env, stdout=stdout) as running,
    ):
        pids = served_and_ended(running)
    text = out.read_text()
    assert {pid for pid in pids if f'"answered by {pid}"' in text} == pids
    assert text.count('"answered by ') == 40
