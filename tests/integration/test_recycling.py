"""Workers that are old, large or worn: replaced one at a time, and no client notices."""

import threading

import pytest
from clients import get
from harness import GENEROUS, Running, comes_to_rest, until
from verbcase import Masters

import recluster
from recluster import OptionError
from recluster.options import Options
from recluster.population import recycling
from recluster.start import balancing

FAST = ("--respawn", 0.1, "--drain-settle", 0.1, "--timeout", 10)


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


class Clients:
    """Who asks all the time, and counts what went wrong."""

    def __init__(self, port):
        self.port, self.failed, self.answered = port, [], 0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.ends.is_set():
            try:
                get(self.port)
                self.answered += 1
            except OSError as error:
                self.failed.append(error)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.ends.set()
        self.thread.join()


def one_at_a_time(seen):
    """Between two recycles the first one's successor got ready."""
    waits = None
    recycled = 0
    for event in seen:
        if event["event"] == "recycle":
            assert waits is None, "two at once"
            waits, recycled = event["slot"], recycled + 1
        elif event["event"] == "ready" and event["slot"] == waits:
            waits = None
    return recycled


def test_old_workers_are_replaced_one_at_a_time_and_nobody_notices(masters):
    words = ("--max-lifetime", 0.5, "--jitter", 0.5)
    with masters.start(*words, workers=3) as cluster:
        cluster.wait_each("ready", 3)
        with Clients(cluster.port) as clients:
            for _ in range(6):
                event = cluster.wait_for("recycle")
                assert (event["why"], event["limit"]) == ("lifetime", 0.5)
                assert event["value"] >= 0.25
                cluster.wait_for("exit", pid=event["pid"], asked=True)
        assert clients.answered and not clients.failed
        assert one_at_a_time(cluster.seen) >= 6
        assert cluster.count("reload") == 0
        assert any("has served for" in line and "to be replaced" in line for line in cluster.log())


def test_scaling_and_reloading_meanwhile(masters):
    with masters.start("--max-lifetime", 0.2) as cluster:
        cluster.wait_each("ready", 2)
        with Clients(cluster.port) as clients:
            for workers in (4, 1, 3):
                cluster.wait_for("recycle")
                masters.asked("scale", workers)
                cluster.wait_for("recycle")
                assert cluster.reload()["ok"]
            cluster.wait_for("recycle", generation=4)
        assert clients.answered and not clients.failed
        until(lambda: sum(slot["workers"] != [] for slot in cluster.status()["slots"]) == 3)
        between = False
        for event in cluster.seen:  # an online of a generation that does not serve: a reload
            if event["event"] == "reload":
                between = False
            between |= event["event"] == "online" and event["generation"] > generation(
                cluster, event
            )
            assert not (between and event["event"] == "recycle")


def generation(cluster, until_event):
    """The one that served when that came."""
    done = [1]
    for event in cluster.seen:
        if event is until_event:
            break
        if event["event"] == "reload" and event["ok"]:
            done.append(event["generation"])
    return max(done)


def test_broken_code_never_takes_a_recycled_one_away(masters):
    with masters.start("--max-lifetime", 1, "--backoff", 0.2) as cluster:
        cluster.wait_each("ready", 2)
        path = masters.apps / "http_server.py"
        path.write_text("raise SystemExit(3)")
        pid = cluster.wait_for("recycle")["pid"]
        for _ in range(3):
            cluster.wait_for("exit", code=3)
        assert pid in cluster.states() and cluster.count("recycle") == 1
        assert sorted(cluster.states().values()).count("serving") == 2


@pytest.fixture
def embedded(apps, monkeypatch):
    """A cluster in this process, whose workers are looked at often."""
    monkeypatch.setattr(recycling, "MEASURE_EVERY", 0.05)
    monkeypatch.chdir(apps)
    events = []

    def cluster(target, **options):
        made = recluster.Cluster(target, args=["0"], respawn=0.1, drain_settle=0.1, **options)
        for name in ("ready", "listening", "recycle", "exit"):
            made.on(name, events.append)
        return made

    def drive(made, condition):
        assert made._core.drive(lambda: any(condition(event) for event in events), GENEROUS)
        return next(event for event in events if condition(event))

    return cluster, drive


def is_ready(event):
    return event.name == "ready"


def test_a_worker_with_too_much_memory_is_replaced(embedded, apps):
    make, drive = embedded
    path = apps / "http_server.py"
    text = path.read_text()
    grows = "    def do_GET(self):\n        kept.append(bytearray(b'x') * (64 << 20))\n"
    path.write_text("kept = []\n" + text.replace("    def do_GET(self):\n", grows))
    with make("http_server.py", workers=1, max_rss="100M") as cluster:
        address = drive(cluster, lambda event: event.name == "listening").address
        first = drive(cluster, is_ready).worker
        grown = threading.Thread(target=lambda: [get(int(address.split(":")[1])) for _ in "12"])
        grown.start()
        event = drive(cluster, lambda event: event.name == "recycle")
        grown.join()
        assert event.worker is first and event.why == "rss"
        assert event.limit == 100 << 20 and 90 << 20 <= event.value < 200 << 20
        drive(cluster, lambda event: event.name == "exit" and event.worker is first)
        assert cluster.active_workers()[0] is not first


@pytest.mark.parametrize("how", ["dispatch", "kernel"])
def test_a_worker_with_many_connections_is_replaced_where_they_are_counted(embedded, how):
    make, drive = embedded
    options = {"balance": "least_connections", "balance_by": how, "jitter": 0}
    made = make("http_server.py", workers=1, max_connections=5, **options)
    try:
        made.start()
    except recluster.ClusterError as error:
        pytest.skip(str(error))
    try:
        port = int(drive(made, lambda event: event.name == "listening").address.split(":")[1])
        first = drive(made, is_ready).worker
        answers = []
        asks = threading.Thread(target=lambda: answers.extend(get(port) for _ in range(5)))
        asks.start()
        event = drive(made, lambda event: event.name == "recycle")
        asks.join()
        assert event.worker is first
        assert (event.why, event.limit) == ("connections", 5) and event.value >= 5
        assert len(answers) == 5
    finally:
        made.terminate()


def test_where_nobody_counts_connections_it_is_said(apps):
    with pytest.raises(OptionError, match="max_connections: nobody counts them with balance re"):
        recluster.Cluster(["true"], max_connections=5, balance="reuseport")
    for name in ("max_rss", "max_lifetime"):
        with pytest.raises(OptionError, match=f"{name}: it does not go with balance shared"):
            recluster.Cluster(["true"], balance="shared", **{name: 5})


class NoKernel:
    """An engine where eBPF is refused."""

    def balance(self, policy):
        pass

    def balance_kernel(self):
        return "bpf", 1


def test_auto_that_cannot_count_says_so_in_one_line():
    for given, lines in (({}, 0), ({"max_connections": 5}, 1)):
        said = []
        assert balancing.choose(NoKernel(), Options.make(given, {}), said.append) == "reuseport"
        assert sum(line.startswith("max_connections: nobody counts") for line in said) == lines


@pytest.mark.parametrize("words", [(), ("--max-lifetime", 1000, "--on", "ready=true")])
def test_the_master_rests_while_nobody_is_due(apps, words):
    with Running(*FAST, *words, "http_server.py", "0", cwd=apps) as cluster:
        cluster.wait_for("ready")
        comes_to_rest(cluster.pidfd)
        assert cluster.count("recycle") == 0
