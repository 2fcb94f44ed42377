"""Signals as the master finds them: ignored, blocked, or in the hands of an embedding host.

What is inherited at exec is not asked for: neither the master nor a worker may depend on it.
"""

import json
import os
import select
import signal

import pytest
from harness import Pidfd, Running, until
from inherit_signals import BLOCKED, spoil

STATE = """
import json, os, signal
print(json.dumps({
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "defaults": all(signal.getsignal(number) == signal.SIG_DFL for number in
                    (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)),
    "int": signal.getsignal(signal.SIGINT) == signal.default_int_handler,
    "wakeup": signal.set_wakeup_fd(-1),
    "child": os.waitpid(os.spawnlp(os.P_NOWAIT, "true", "true"), 0)[1],
}), flush=True)
signal.pause()
"""
RIGHT = {"blocked": [], "defaults": True, "int": True, "wakeup": -1, "child": 0}


def line_of(reader):
    assert select.select([reader], [], [], 30)[0], "the worker says nothing"
    return json.loads(reader.readline())


@pytest.fixture
def spoiled(apps):
    with Running(
        "--workers", 2, "--drain-settle", 0.1, "http_server.py", 0, cwd=apps, preexec_fn=spoil
    ) as running:
        running.wait_each("ready", 2)
        yield running


def test_deaths_are_noticed_where_sigchld_was_ignored(spoiled):
    """K3: the end was never seen, and the loop span on ECHILD."""
    victim = spoiled.pids()[0]
    os.kill(victim, signal.SIGKILL)
    assert spoiled.wait_for("exit", slot=0)["signal"] == "SIGKILL"
    assert spoiled.wait_for("ready", slot=0)["pid"] != victim
    assert spoiled.end() == 0


def test_what_was_blocked_is_heard(spoiled):
    """K4: TERM and USR2 stayed pending for ever, in the master and in its workers."""
    assert spoiled.reload()["ok"]
    assert spoiled.end() == 0
    assert spoiled.count("exit", signal="SIGTERM") == spoiled.count("online") == 4


@pytest.mark.parametrize("way", ["forked", "executed"])
@pytest.mark.parametrize("before", [None, spoil], ids=["as usual", "spoiled"])
def test_a_worker_begins_with_clean_signals(way, before, apps):
    """K4: neither what the master inherited, nor its own handlers and descriptor."""
    (apps / "state.py").write_text(STATE)
    command = ["state.py"] if way == "forked" else ["--", "python3", "state.py"]
    reader, writer = os.pipe()
    with (
        open(reader) as said,
        Running("--workers", 1, *command, cwd=apps, stdout=writer, preexec_fn=before) as running,
    ):
        os.close(writer)
        assert line_of(said) == RIGHT
        running.wait_for("online")


def test_the_runner_does_what_it_says():
    """tests/inherit_signals.py; else what it proves is nothing."""
    pid = os.fork()
    if pid == 0:
        spoil()
        ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        blocked = set(BLOCKED) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os._exit(0 if ignored and blocked else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_end_of_a_worker_whose_host_ignores_sigchld(program):
    """K3, embedded: the host keeps its choice. How the worker ended nobody knows."""
    found, _ = program("""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        cluster = cluster_of(respawn=0.1)
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        os.kill(cluster.workers()[0].pid, signal.SIGKILL)
        drive_until(cluster, lambda: names().count("ready") == 3)
        ends = [details["code"] for name, _, details in seen if name == "exit"]
        kept = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        cluster.shutdown()
        print(json.dumps([ends, kept, cluster.wait(30), cluster.exit_code]))
        """)
    assert found == [[255], True, True, 0]


def test_native_threads_change_nothing(program):
    """K6: the kernel gave TERM to the thread that module threading does not know."""
    found, _ = program("""
        import _thread, time
        _thread.start_new_thread(time.sleep, (60,))
        cluster = cluster_of()
        cluster.on("ready", lambda event: os.kill(os.getpid(), signal.SIGTERM))
        print(json.dumps([cluster.run(), names().count("exit")]))
        """)
    assert found == [0, 2]


def test_what_a_callback_starts_can_be_ended(program):
    """K7: TERM was blocked in it."""
    found, _ = program("""
        import subprocess
        codes = []
        def ready(event):
            process = subprocess.Popen(["sleep", "60"])
            process.terminate()
            codes.append(process.wait(30))
            codes.append(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
            cluster.shutdown()
        cluster = cluster_of(workers=1)
        cluster.on("ready", ready)
        print(json.dumps([cluster.run(), codes]))
        """)
    assert found == [0, [-signal.SIGTERM, []]]


def test_a_handler_of_before_runs_from_dispatch(program):
    """It may call every method, for it comes between two turns; and it is there again."""
    found, _ = program("""
        import traceback
        def own(number, frame):
            handled.append([number, any(f.name == "dispatch" for f in traceback.extract_stack())])
            cluster.reload()
        handled = []
        signal.signal(signal.SIGUSR2, own)
        cluster = cluster_of(workers=1)
        cluster.start(signals=True)
        drive_until(cluster, lambda: "ready" in names())
        os.kill(os.getpid(), signal.SIGUSR2)
        drive_until(cluster, lambda: "reload" in names())
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        kept = signal.getsignal(signal.SIGUSR2) is own, signal.set_wakeup_fd(-1)
        print(json.dumps([handled, kept]))
        """)
    assert found == [[[signal.SIGUSR2, True]], [True, -1]]


def test_beside_a_loop_that_has_the_wakeup_descriptor(program):
    """asyncio's own handlers go on, and ours are heard."""
    found, _ = program("""
        import asyncio
        async def main():
            loop, heard, ready = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
            loop.add_signal_handler(signal.SIGURG, heard.set)
            cluster = cluster_of(workers=1)
            cluster.on("ready", lambda event: ready.set())
            cluster.start(signals=True)
            loop.add_reader(cluster.fileno(), cluster.dispatch)
            await asyncio.wait_for(ready.wait(), 30)
            os.kill(os.getpid(), signal.SIGURG)
            await asyncio.wait_for(heard.wait(), 30)
            ended = asyncio.Event()
            cluster.on("end", lambda event: ended.set())
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(ended.wait(), 30)
            heard.clear()
            os.kill(os.getpid(), signal.SIGURG)
            await asyncio.wait_for(heard.wait(), 30)
            return cluster.exit_code
        print(json.dumps(asyncio.run(main())))
        """)
    assert found == 0


def test_orphans_are_reaped_by_the_command_line(apps):
    """As subreaper it hears SIGCHLD; a grandchild that outlives its parent is no zombie."""
    (apps / "orphans.py").write_text(
        "import subprocess, signal\n"
        'text = "sleep 60 >/dev/null & echo $!"\n'
        'out = subprocess.run(["sh", "-c", text], stdout=subprocess.PIPE)\n'
        "print(int(out.stdout.split()[0]), flush=True)\n"
        "signal.pause()\n"
    )
    reader, writer = os.pipe()
    with (
        open(reader) as said,
        Running("--workers", 1, "orphans.py", cwd=apps, stdout=writer) as running,
    ):
        os.close(writer)
        orphan = Pidfd(line_of(said))
        assert orphan.fd is not None
        orphan.signal(signal.SIGKILL)
        assert orphan.is_dead(30)

        def reaped():
            try:
                os.kill(orphan.pid, 0)
            except ProcessLookupError:
                return True
            return False

        until(reaped)
        orphan.close()
        assert running.end() == 0
