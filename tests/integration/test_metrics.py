"""What --metrics tells, against what the kernel and the events tell."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from clients import answers, connect, get
from harness import GENEROUS, edit, links, until
from scrapecase import Values, address_of, parsed, scrape, started
from verbcase import Masters

from recluster import _engine
from recluster.metrics.measures import FAMILIES, table
from recluster.verbs.tables import size, status_lines

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 1 / os.sysconf("SC_CLK_TCK")

# shared/operators.md: what dashboards are built upon.
PROMISED = {
    "workers", "generation", "reloads_total", "reload_seconds", "last_reload_timestamp_seconds",
    "worker_exits_total", "hangs_total", "queue_length", "backlog", "accepted_total",
    "connections", "worker_resident_bytes", "worker_proportional_bytes",
    "worker_cpu_seconds_total", "log_lines_lost_total", "build_info",
}  # fmt: skip


@pytest.fixture
def running(apps):
    with started("http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_each("ready", 2)
        yield cluster


def rss_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[21]) * PAGE


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK


def pss_of(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def accept_queue(pid, port):
    """The longest of a port: of a listener the kernel tells it as rx_queue (proc(5)). (The
    master's own sink may be another.)"""
    found = [0]
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            found.append(int(fields[4].partition(":")[2], 16))
    return max(found)


def test_files_of_workers_stay_open_in_the_master_only_and_until_their_end(running):
    def looked_into(pid):
        return {int(link.split("/")[2]) for link in links(pid) if link.startswith("/proc/")}

    for _ in range(2):
        before = set(running.pids().values())
        scrape(running)
        assert looked_into(running.process.pid) == before
        assert running.reload()["ok"]
        for pid in before:
            running.wait_for("exit", pid=pid)
        assert not looked_into(running.process.pid) & before
        assert not any(looked_into(pid) for pid in running.pids().values())


# ---- names and form ------------------------------------------------------------------


def test_names_are_those_that_were_promised_and_documented(running):
    assert running.reload()["ok"]
    first = running.pids()[0]
    os.kill(first, signal.SIGKILL)
    running.wait_for("exit", pid=first)
    known = {one.sample.removeprefix("recluster_") for one in FAMILIES}

    def told():
        """PSS comes for one worker after the other."""
        values = scrape(running)
        names = {name.removeprefix("recluster_") for name in values.names}
        assert names <= known
        # Without a privilege nobody counts connections in the kernel.
        counted = values.by("accepted_total", "slot")
        left = PROMISED - names - (set() if counted else {"accepted_total", "connections"})
        assert left <= {"worker_proportional_bytes"}
        return values if not left else None

    values = until(told)
    build = [key for key in values.found if key[0] == "recluster_build_info"]
    assert len(build) == 1 and dict(build[0][1])["door"] == running.status()["door"]


def test_the_documentation_has_each_of_them():
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert table() in page.read_text()


# ---- workers -------------------------------------------------------------------------


def test_memory_cpu_and_descriptors_are_the_kernels(running):
    pids = running.pids()

    def agrees():
        before = {slot: (rss_of(pid), cpu_of(pid)) for slot, pid in pids.items()}
        values = scrape(running)
        after = {slot: (rss_of(pid), cpu_of(pid)) for slot, pid in pids.items()}
        for slot, pid in pids.items():
            told = values("worker_resident_bytes", slot=slot)
            assert told > 1 << 20
            if told not in (before[slot][0], after[slot][0]):
                return False
            cpu = values("worker_cpu_seconds_total", slot=slot)
            assert before[slot][1] - 1e-6 <= cpu <= after[slot][1] + 1e-6
            fds = values("worker_open_fds", slot=slot)
            assert fds is None or fds == len(os.listdir(f"/proc/{pid}/fd"))
            assert values("worker_processes", slot=slot) == 1
            labels = {"slot": slot, "pid": pid, "generation": 1, "state": "serving"}
            assert values("worker_info", **labels) == 1
        return True

    until(agrees)


def test_pss_comes_for_each_worker_in_the_end(running):
    pids = running.pids()

    def all_of_them():
        return len(scrape(running).by("worker_proportional_bytes", "slot")) == len(pids)

    until(all_of_them)

    def agrees():
        told = scrape(running).by("worker_proportional_bytes", "slot")
        return all(abs(told[str(slot)] - pss_of(pid)) <= 1 << 20 for slot, pid in pids.items())

    until(agrees)


def test_the_master_measures_itself(running):
    pid = running.process.pid
    values = scrape(running)
    assert abs(values("master_resident_bytes") - rss_of(pid)) < 4 << 20
    assert 0 < values("master_cpu_seconds_total") <= cpu_of(pid) + 2 * TICK
    assert 0 <= time.time() - values("start_time_seconds") < 600


def test_children_of_a_worker_are_counted_with_it(apps):
    with started("forks_children.py", "0", cwd=apps, workers=1) as running:
        running.wait_for("ready")
        [pid] = running.pids().values()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            pytest.skip("this kernel does not tell children")
        values = scrape(running)
        assert values("worker_processes", slot=0) == 1 + len(children)
        assert values("worker_resident_bytes", slot=0) > rss_of(pid)


def test_cpu_time_of_the_dead_stays(apps):
    """Exact, though nobody scraped while it lived: the kernel says it at the end."""
    burn = (
        "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"
    )
    server = apps / "http_server.py"
    server.write_text(server.read_text().replace("if __name__", burn + "if __name__"))
    with started("http_server.py", "0", cwd=apps, workers=1) as running:
        first = running.wait_for("ready")["pid"]
        os.kill(first, signal.SIGKILL)
        running.wait_for("exit", pid=first)
        running.wait_for("ready")
        assert scrape(running)("worker_cpu_seconds_total", slot=0) >= 0.6
        before = scrape(running)("worker_cpu_seconds_total", slot=0)
        assert running.reload()["ok"]
        running.wait_for("exit")
        assert scrape(running)("worker_cpu_seconds_total", slot=0) >= max(0.9, before)


def test_workers_by_state_and_slots(running):
    values = scrape(running)
    assert values("workers", state="serving") == 2
    assert sum(values.by("workers", "state").values()) == 2
    assert values.by("slots", "state") == {"wanted": 2, "serving": 2, "drained": 0}
    assert values("generation") == 1 and values("reloading") == 0


def test_exits_restarts_and_starts(running):
    first = running.pids()[1]
    os.kill(first, signal.SIGKILL)
    running.wait_for("exit", pid=first)
    running.wait_for("ready", slot=1, where=lambda one: one["pid"] != first)
    values = scrape(running)
    assert values("worker_exits_total", slot=1, reason="signal") == 1
    assert values("worker_exits_total", slot=0, reason="signal") is None
    assert values.by("worker_restarts_total", "slot") == {"0": 1 - 1, "1": 1}
    assert values.by("worker_starts_total", "slot") == {"0": 1, "1": 2}
    assert running.reload()["ok"]
    running.wait_each("exit", 2)
    values = scrape(running)
    assert {values("worker_exits_total", slot=slot, reason="asked") for slot in (0, 1)} == {1}


def test_recycles(apps):
    with started("--max-lifetime", "0.3", "--jitter", "0", "http_server.py", "0", cwd=apps) as one:
        slot = one.wait_for("recycle")["slot"]
        assert scrape(one)("worker_recycles_total", slot=slot, reason="lifetime") >= 1


def test_status_has_what_metrics_have(running):
    """Of each worker: memory, CPU time, connections, queue, pressure; of each slot: its last
    exit, restarts and the sums."""
    with connect(running.port):  # it is open, and perhaps not accepted
        first = running.pids()[0]
        os.kill(first, signal.SIGKILL)
        running.wait_for("ready", slot=0, where=lambda one: one["pid"] != first)

        def agrees():
            told, values = running.status()["slots"], scrape(running)
            for slot in told:
                [one] = slot["workers"]
                index = slot["slot"]
                assert one["processes"] == 1 and one["queued"] in (0, 1) and one["pressure"]
                if one["rss"] != values("worker_resident_bytes", slot=index):
                    return False
                assert one["connections"] == values("connections", slot=index)
                assert slot["accepted"] == values("accepted_total", slot=index)
                assert slot["restarts"] == values("worker_restarts_total", slot=index)
            return True

        until(agrees)
    status = running.status()
    lines = status_lines(status)
    head = next(line for line in lines if line.startswith("slot")).split()
    assert head == [
        "slot", "generation", "pid", "state", "age", "ready", "cpu", "rss", "conns", "queued",
        "pressure", "restarts", "addresses",
    ]  # fmt: skip
    row = next(line.split() for line in lines if str(running.pids()[0]) in line)
    assert row[7] == size(status["slots"][0]["workers"][0]["rss"]) and row[11] == "1"
    slots = status["slots"]
    assert slots[0]["last_exit"]["what"] == "SIGKILL" and slots[0]["last_exit"]["ago"] < GENEROUS
    assert slots[0]["last_error"]["what"] and slots[1]["last_exit"] is None
    assert slots[0]["cpu"] >= slots[0]["workers"][0]["cpu"]


def test_reloads(running, apps):
    assert scrape(running)("last_reload_timestamp_seconds") is None
    began = time.time()
    took = running.reload()["seconds"]
    values = scrape(running)
    assert values.by("reloads_total", "result") == {"ok": 1, "failed": 0, "rolled_back": 0}
    assert values("reload_seconds_count") == 1
    assert values("reload_seconds_sum") == pytest.approx(took)
    assert values("reload_seconds_bucket", le="+Inf") == 1
    assert values("reload_seconds_bucket", le="0.1") == (took <= 0.1)
    assert began - 1 <= values("last_reload_timestamp_seconds") <= time.time()
    assert values("last_reload_successful") == 1 and values("generation") == 2
    edit(apps / "http_server.py", 'VERSION = "1"', "VERSION = ")
    assert not running.reload()["ok"]
    values = scrape(running)
    assert values.by("reloads_total", "result") == {"ok": 1, "failed": 1, "rolled_back": 0}
    assert values("last_reload_successful") == 0 and values("generation") == 2
    assert values("reload_seconds_count") == 1


def test_hangs_queues_and_backlog(apps):
    """One worker stands still, and who is steered to it waits."""
    with started("hangs.py", "0", cwd=apps, workers=1) as running:
        running.wait_for("ready")
        port, pid = running.port, running.process.pid
        address = f"127.0.0.1:{port}"
        assert scrape(running)("queue_length", address=address) == 0
        with contextlib.ExitStack() as held:
            hanging = held.enter_context(connect(port))
            hanging.sendall(b"GET /hang HTTP/1.0\r\n\r\n")
            running.wait_for("message")
            for _ in range(5):
                held.enter_context(connect(port))
            until(lambda: accept_queue(pid, port) == 5)
            values = scrape(running)
            backlog = running.status()["lanes"][0]["backlog"]
            assert values("queue_length", address=address) == 5
            assert values("backlog", address=address) == backlog
            assert values("queue_fullest_ratio", address=address) == pytest.approx(5 / backlog)
            os.kill(running.pids()[0], signal.SIGKILL)
            running.wait_for("ready")
            until(lambda: scrape(running)("queue_length", address=address) == 0)


def test_a_hang_is_counted(apps):
    with started("--balance", "reuseport", "hangs.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        with contextlib.ExitStack() as held:
            hanging = held.enter_context(connect(running.port))
            hanging.sendall(b"GET /hang HTTP/1.0\r\n\r\n")
            slot = running.wait_for("message")["slot"]

            def hung():
                held.enter_context(connect(running.port))
                return running.count("hung") > 0

            until(hung)
            values = scrape(running)
            assert values("hangs_total", slot=slot) == 1
            assert values("hangs_total", slot=1 - slot) == 0
            assert values("lanes", pressure="hung") == 1
            assert values("slots", state="serving") == 1


# ---- connections ---------------------------------------------------------------------


def counted(running):
    values = scrape(running)
    return values.by("accepted_total", "slot"), values.by("connections", "slot")


def kernel_refuses():
    engine = _engine.Engine()
    try:
        engine.balance("least_connections")
        return engine.balance_kernel()
    finally:
        engine.close()


def total(found):
    return sum(found.values())


@pytest.mark.parametrize("by", ["dispatch", "kernel"])
def test_connections_where_they_are_counted(apps, by):
    if by == "kernel" and (refused := kernel_refuses()):
        pytest.skip(f"the kernel does not count here: {refused[0]}")
    words = ("--balance", "least_connections", "--balance-by", by, "holds_connections.py", "0")
    with started(*words, cwd=apps) as running:
        with contextlib.ExitStack() as stack:
            running.wait_each("ready", 2)
            before, _ = counted(running)
            seen = {"0": 0, "1": 0}
            for _ in range(7):
                client = stack.enter_context(connect(running.port))
                seen[client.recv(1).decode()] += 1
            until(lambda: counted(running)[1] == seen)
            got, _ = counted(running)
            assert {slot: got[slot] - before.get(slot, 0) for slot in got} == seen
            assert {slot["slot"]: slot["accepted"] for slot in running.status()["slots"]} == {
                int(slot): got[slot] for slot in got
            }
        until(lambda: total(counted(running)[1]) == 0)
        # What ended workers got is still counted, and nothing twice.
        assert running.reload()["ok"]
        running.wait_each("exit", 2)
        with connect(running.port) as client:
            client.recv(1)
            after, _ = counted(running)
            booted = total(before)  # the master's own question, as often as at the start
            assert total(after) == total(got) + booted + 1


def test_without_the_count_there_is_no_sample(apps):
    with started("--balance", "reuseport", "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        get(running.port)
        assert counted(running) == ({}, {})
        assert {slot["accepted"] for slot in running.status()["slots"]} == {None}


def test_draining_connections(apps):
    options = ("--drain-quiet", "timeout", "holds_connections.py", "0")
    with started(*options, cwd=apps) as running:
        running.wait_each("ready", 2)
        with contextlib.ExitStack() as held:
            for _ in range(3):
                held.enter_context(connect(running.port)).recv(1)
            assert running.reload()["ok"]
            until(lambda: scrape(running)("draining_connections", generation=1) == 3)
            assert scrape(running)("draining_connections", generation=2) is None
        running.wait_each("exit", 2)
        assert scrape(running)("draining_connections", generation=1) is None


def test_lines_that_nobody_reads(apps):
    """Standard error leads nowhere: each line of the log is lost, and counted."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with started("http_server.py", "0", cwd=apps, stderr=writer) as running:
            running.wait_each("ready", 2)
            before = scrape(running)("log_lines_lost_total")
            assert before >= 3, "where it listens, and who is ready"
            os.kill(running.pids()[0], signal.SIGKILL)
            running.wait_for("exit", slot=0)
            assert scrape(running)("log_lines_lost_total") > before
    finally:
        os.close(writer)


# ---- the other way -------------------------------------------------------------------


def test_status_metrics_is_the_same_text(apps, tmp_path):
    """For textfile collectors; also without --metrics."""
    masters = Masters(apps, tmp_path / "run")
    with masters.start() as running:
        running.wait_each("ready", 2)
        lines = masters.asked("status", "--metrics")
        values = Values(parsed("\n".join([*lines, ""])))
        assert values("workers", state="serving") == 2
        assert values.by("slots", "state")["serving"] == 2
        assert running.status()["metrics"] is None


def test_many_workers_are_looked_at_in_slices(apps):
    """More than one turn of the loop; and it answers others between two."""
    with started("--boots", "8", "http_server.py", "0", cwd=apps, workers=40) as running:
        running.wait_each("ready", 40)
        values = scrape(running)
        assert len(values.by("worker_resident_bytes", "slot")) == 40
        assert all(value > 1 << 20 for value in values.by("worker_resident_bytes", "slot").values())
        status = running.status()
        assert all(slot["workers"][0]["rss"] > 1 << 20 for slot in status["slots"])
        assert {one["pid"] for one in answers(running.port, 20)} <= set(running.pids().values())
        assert address_of(running)[0] == "127.0.0.1"
