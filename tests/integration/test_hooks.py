"""--on EVENT=COMMAND: real shells, what they are given, and that the master never waits."""

import json
import os
import signal
from pathlib import Path

import pytest
from harness import GENEROUS, Pidfd, descendants, survivors, until
from verbcase import Masters

import recluster
from recluster import OptionError
from recluster.master import hooks
from recluster.options import hookspec


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


def logged(cluster, text):
    return until(lambda: [line for line in cluster.log() if text in line])[0]


def test_a_hook_has_the_event_in_its_environment_and_on_its_input(masters):
    masters.env |= {"NOTIFY_SOCKET": "@nobody-here", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    line = (
        '{ cat; env; echo done; } > "$RECLUSTER_EVENT-$RECLUSTER_EVENT_SLOT.tmp" && mv *.tmp told'
    )
    with masters.start("--on", f"ready={line}", workers=1) as cluster:
        event = cluster.wait_for("ready")
        told = masters.apps / "told"
        first, *environ, _ = until(lambda: told.exists() and told.read_text().splitlines())
        said = json.loads(first)
        assert (said["event"], said["slot"], said["pid"]) == ("ready", 0, event["pid"])
        assert said["seconds"] == event["seconds"]
        assert f"RECLUSTER_EVENT_PID={event['pid']}" in environ
        assert f"RECLUSTER_EVENT_SECONDS={event['seconds']}" in environ
        assert f"RECLUSTER_MASTER_PID={cluster.process.pid}" in environ
        assert not [one for one in environ if one.startswith(("NOTIFY_", "LISTEN_"))]
        assert cluster.end() == 0


def test_what_it_prints_is_logged_and_so_is_its_exit_code(masters):
    words = (
        "--on",
        "ready=echo one; echo two >&2; exit 3",
        "--on",
        "ready=kill -9 $$",
        "--on",
        "reload=:",
    )
    with masters.start(*words, workers=1) as cluster:
        cluster.wait_for("ready")
        assert logged(cluster, "one").endswith("hook ready: one")
        assert logged(cluster, "two").endswith("hook ready: two")
        assert "hook ready: exit code 3 after 0." in logged(cluster, "exit code 3")
        assert "hook ready: exit code 137 after 0." in logged(cluster, "exit code 137")
        assert cluster.reload()["ok"]
        until(lambda: not [pid for pid in descendants(cluster.process.pid) if is_shell(pid)])
        assert not [line for line in cluster.log() if "hook reload" in line]


def is_shell(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "sh\n"
    except OSError:
        return False


def test_the_master_goes_on_while_hooks_hang_and_gives_them_little_time_at_its_end(masters):
    with masters.start(
        "--on", "ready=exec sleep 1000", "--on", "end=echo $RECLUSTER_EVENT_CODE > end"
    ) as cluster:
        cluster.wait_each("ready", 2)
        until(lambda: len(sleepers(cluster)) == 2)
        sleeping = [Pidfd(pid) for pid in sleepers(cluster)]
        assert cluster.reload()["ok"]
        assert len(sleepers(cluster)) >= 2
        assert cluster.end() == 0
        assert not survivors(sleeping, GENEROUS)
        for one in sleeping:
            one.close()
        assert any("hook ready: killed at the end: exec sleep" in line for line in cluster.log())
        assert (masters.apps / "end").read_text() == "0\n"


def sleepers(cluster):
    found = []
    for pid in descendants(cluster.process.pid):
        comm = Path(f"/proc/{pid}/comm")
        if comm.exists() and comm.read_text() == "sleep\n":
            found.append(pid)
    return found


def test_an_event_that_there_is_not():
    for given in (["raedy=true"], {"raedy": "true"}, [["raedy", "true"]], "raedy=true"):
        with pytest.raises(OptionError, match="has no event 'raedy'; did you mean ready"):
            recluster.Cluster(["true"], on=given)
    for given in (["ready"], ["ready="], {"ready": ""}, 5, [5]):
        with pytest.raises(OptionError, match="on: .* must be"):
            recluster.Cluster(["true"], on=given)
    both = hookspec.wanted({"ready": ["a", "b=c"], "exit": "d"})
    assert both == (("ready", "a"), ("ready", "b=c"), ("exit", "d")) == hookspec.wanted(list(both))
    assert hookspec.wanted("ready=a=b") == (("ready", "a=b"),)


# ---- limits ---------------------------------------------------------------------------


class Loop:
    """What of a cluster a hook needs, with a poll of its own."""

    def __init__(self, *on):
        self.said, self.watched = [], {}
        self.hooks = hooks.Hooks(
            hookspec.wanted(list(on)), lambda text, level: self.said.append(text)
        )
        self.hooks.attach(self)

    def watch(self, fd, callback):
        self.watched[fd] = callback

    def unwatch(self, fd):
        self.watched.pop(fd, None)

    def until(self, condition):
        import select
        import time

        end = time.monotonic() + GENEROUS
        while not condition():
            assert time.monotonic() < end, self.said
            poll = select.poll()
            for fd in self.watched:
                poll.register(fd, select.POLLIN)
            at = self.hooks.deadline()
            left = end if at is None else at
            for fd, _ in poll.poll(max(0.0, left - time.monotonic()) * 1000):
                self.watched.get(fd, lambda: None)()
            if at is not None and time.monotonic() >= at:
                self.hooks.tick(time.monotonic())


@pytest.fixture
def loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(*on):
        made.append(Loop(*on))
        return made[-1]

    before = sorted(os.listdir("/proc/self/fd"))
    yield make
    for one in made:
        one.hooks.close(0.0)
        assert not one.watched
    assert len(os.listdir("/proc/self/fd")) == len(before), "a descriptor is left"
    assert not [pid for pid in descendants(os.getpid()) if is_shell(pid)], "a zombie is left"


def test_so_many_run_so_many_wait_and_the_rest_is_told(loop, tmp_path):
    os.mkfifo("go")
    one = loop("ready=read x < go; echo ran")
    for _ in range(100):
        one.hooks.happened("ready", {"event": "ready"})
    assert len(descendants(os.getpid())) >= hooks.RUNNING_MOST
    assert len(one.hooks._running) == hooks.RUNNING_MOST
    assert one.said == ["hooks: 8 run and 64 wait: more are left out"]
    end = os.open("go", os.O_RDWR)
    os.write(end, b"\n" * 100)
    one.until(lambda: one.said.count("hook ready: ran") == 72)
    one.until(lambda: not one.hooks._running)
    os.close(end)
    assert one.said.count("hooks: 28 were left out") == 1


def test_who_takes_too_long_is_killed_with_its_children(loop, monkeypatch):
    monkeypatch.setattr(hooks, "SECONDS", 0.3)
    one = loop("ready=sleep 1000 & echo $! ; sleep 1000")
    one.hooks.happened("ready", {"event": "ready"})
    one.until(lambda: one.said)
    child = Pidfd(int(one.said[0].rpartition(" ")[2]))
    one.until(lambda: len(one.said) == 2)
    assert one.said[1] == "hook ready: killed after 0.3 s: sleep 1000 & echo $! ; sleep 1000"
    assert child.is_dead(GENEROUS)
    child.close()


def test_what_it_leaves_in_the_background_holds_nobody_up(loop):
    one = loop("ready=sleep 1000 & echo $!")
    one.hooks.happened("ready", {"event": "ready"})
    one.until(lambda: len(one.said) == 2)
    assert "exit code 0" in one.said[1]
    os.kill(int(one.said[0].rpartition(" ")[2]), signal.SIGKILL)


def test_who_prints_without_end_is_cut_short(loop, monkeypatch):
    monkeypatch.setattr(hooks, "SECONDS", 1.0)
    one = loop("ready=yes")
    one.hooks.happened("ready", {"event": "ready"})
    one.until(lambda: one.said and "killed after 1 s" in one.said[-1])
    assert one.said[-2] == "hook ready: ... (more is not told)"
    assert len(one.said) < 40_000


def test_a_large_event_comes_whole_on_standard_input(loop):
    one = loop('ready=wc -c; test -z "$RECLUSTER_EVENT_WHY" && echo "$RECLUSTER_EVENT_OK."')
    one.hooks.happened("ready", {"event": "ready", "why": "x" * 1_000_000, "ok": True})
    one.until(lambda: len(one.said) == 3)
    assert int(one.said[0].rpartition(" ")[2]) > 1_000_000
    assert one.said[1] == "hook ready: 1."


def test_without_a_shell_one_line_is_said(loop, monkeypatch):
    monkeypatch.setattr(hooks.Run, "_spawn", staticmethod(no_shell))
    one = loop("ready=true")
    one.hooks.happened("ready", {"event": "ready"})
    assert one.said == [
        "hook ready: cannot be started: [Errno 2] No such file or directory: '/bin/sh'"
    ]


def no_shell(*unused):
    raise FileNotFoundError(2, "No such file or directory", "/bin/sh")
