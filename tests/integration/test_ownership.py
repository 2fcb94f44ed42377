"""Whose a cluster is: its thread's, its process's, and nobody's who waits inside a callback."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ENVIRONMENT, Pidfd

from recluster.host import forks

CALLS = """
calls = {
    "reload": cluster.reload, "scale": lambda: cluster.scale(3), "workers": cluster.workers,
    "active_workers": cluster.active_workers, "size": cluster.size,
    "broadcast": lambda: cluster.broadcast(1), "send": lambda: cluster.send(worker, 1),
    "signal": lambda: cluster.signal(worker, signal.SIGCONT),
    "shutdown": cluster.shutdown, "terminate": cluster.terminate, "dispatch": cluster.dispatch,
    "wait": lambda: cluster.wait(1), "run": cluster.run, "fileno": cluster.fileno,
    "promote": cluster.promote, "rollback": cluster.rollback,
    "watch": lambda: cluster.watch(0, print), "unwatch": lambda: cluster.unwatch(0),
    "weights": lambda: cluster.weights({0: 1}), "handle": lambda: handle.wait(1),
}
def refusals():
    refused = []
    for name, call in calls.items():
        try:
            call()
        except RuntimeError as error:
            if "belongs to" in str(error):
                refused.append(name)
    return sorted(refused) == sorted(calls) or refused
"""
START = """
cluster = cluster_of({options})
cluster.start()
drive_until(cluster, lambda: names().count("ready") == 2)
worker = cluster.workers()[0]
"""


def start(options=""):
    return START.format(options=options)


def test_another_thread_is_refused(program):
    """K9: two threads in one engine ended the process by SIGSEGV."""
    found, _ = program(
        start("balance='weighted'")
        + "handle = cluster.reload()\n"
        + CALLS
        + """
import threading
told = []
threads = [threading.Thread(target=lambda: told.append(refusals())) for _ in range(2)]
for thread in threads:
    thread.start()
cluster.wait(0.1)
for thread in threads:
    thread.join()
drive_until(cluster, lambda: handle.done)
cluster.shutdown()
print(json.dumps([told, handle.ok, len(cluster.workers()) >= 2, cluster.wait(30)]))
"""
    )
    assert found == [[True, True], True, True, True]


def test_a_cluster_may_be_made_here_and_run_there(program):
    found, _ = program("""
        import threading
        cluster, codes = cluster_of(), []
        cluster.on("ready", lambda event: cluster.shutdown())
        thread = threading.Thread(target=lambda: codes.append(cluster.run()))
        thread.start()
        thread.join()
        print(json.dumps(codes))
        """)
    assert found == [0]


@pytest.mark.parametrize(
    "call", ["cluster.reload().wait()", "cluster.wait()", "cluster.run()", "cluster.dispatch()"]
)
def test_waiting_inside_a_callback_is_refused(call, program):
    """K9: it hung for ever, for what it waited for was behind the callback."""
    found, stderr = program(f"""
        cluster = cluster_of(workers=1)
        done = []
        def ready(event):
            try:
                {call}
            finally:
                done.append(1)
        cluster.on("ready", ready)
        cluster.start()
        drive_until(cluster, lambda: done)
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps(len(done) >= 1))
        """)
    assert found is True
    assert "ready raised RuntimeError: inside a callback" in stderr


def test_a_child_of_the_host_ends_nothing(program):
    """K5: at the child's exit its copy of the cluster killed all workers."""
    found, _ = program(
        start()
        + """
if (pid := os.fork()) == 0:
    sys.exit(0)
os.waitpid(pid, 0)
cluster.reload().wait(30)
drive_until(cluster, lambda: names().count("exit") == 2)
ended = [details for name, _, details in seen if name == "exit"]
told = {answer["worker"] for answer in answers(port(), 40)}
cluster.shutdown()
print(json.dumps([sorted(told), [d["signal"] for d in ended], cluster.wait(30)]))
"""
    )
    assert found == [["0", "1"], ["SIGTERM", "SIGTERM"], True]


def test_leaving_the_context_in_a_child_of_the_host_ends_nothing(program):
    found, _ = program("""
        with cluster_of() as cluster:
            drive_until(cluster, lambda: names().count("ready") == 2)
            if (pid := os.fork()) == 0:
                sys.exit(7)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            told = {answer["worker"] for answer in answers(port(), 40)}
            ends = names().count("exit")
        print(json.dumps([code, sorted(told), ends]))
        """)
    assert found == [7, ["0", "1"], 0]


def test_in_a_child_of_the_host_every_method_is_refused(program):
    found, _ = program(
        start("balance='weighted'")
        + "handle = cluster.reload()\n"
        + CALLS
        + """
if (pid := os.fork()) == 0:
    os._exit(0 if refusals() is True else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
drive_until(cluster, lambda: handle.done)
cluster.shutdown()
print(json.dumps([code, handle.ok, cluster.wait(30)]))
"""
    )
    assert found == [0, True, True]


def test_a_child_of_the_host_keeps_no_worker_alive(program):
    """Its copy of the guard's pipe hid the master's death; its copies of lanes, the end."""
    found, _ = program(
        start()
        + """
reader, writer = os.pipe()
if (pid := os.fork()) == 0:
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.write(writer, b"x")
    signal.pause()
os.read(reader, 1)
print(json.dumps([pid] + [worker.pid for worker in cluster.workers()]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
        code=-signal.SIGKILL,
    )
    child, *workers = map(Pidfd, found)
    assert not child.is_dead()
    try:
        assert all(worker.is_dead(10) for worker in workers)
    finally:
        child.signal(signal.SIGKILL)
        for pidfd in (child, *workers):
            pidfd.close()


def test_a_child_of_the_host_has_its_own_signals(program):
    found, _ = program("""
        def ready(event):
            if (pid := os.fork()) == 0:
                signal.pause()
                os._exit(0)
            os.kill(pid, signal.SIGTERM)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            cluster.shutdown()
        codes = []
        cluster = cluster_of(workers=1)
        cluster.on("ready", ready)
        print(json.dumps([cluster.run(), codes]))
        """)
    assert found == [0, [-signal.SIGTERM]]


def test_a_wait_of_weeks_is_one(program):
    """3e6 s did not fit the kernel's 31 bits of milliseconds; nor does infinity."""
    found, _ = program("""
        import threading, time
        def asked_for():
            found = []
            until = time.monotonic() + 30
            while time.monotonic() < until and not found:
                words = open(f"/proc/self/task/{main}/syscall").read().split()
                if words[0] in ("22", "232", "281", "441"):
                    found.append(int(words[4], 16))
                time.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
            told.extend(found)
        told, main = [], threading.get_native_id()
        for seconds in (3e6, float("inf")):
            cluster = cluster_of("never_listens.py", workers=1, ready_timeout=None)
            cluster.start(signals=True)
            cluster.wait(0.1)
            thread = threading.Thread(target=asked_for)
            thread.start()
            cluster.wait(seconds)
            thread.join()
        print(json.dumps(told))
        """)
    assert found == [2_000_000_000] * 2


MASTER = """
import _thread, sys, time
from recluster.child import startup
startup.begin()
from recluster.verbs.cli import main
if "native" in sys.argv:
    _thread.start_new_thread(time.sleep, (600,))
sys.exit(main(["--workers", "1", "how.py"]))
"""
HOW = """
import signal
print("run.py" in open("/proc/self/cmdline").read(), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("native", [False, True])
def test_with_a_native_thread_nothing_is_forked_without_exec(native, apps):
    """K6: module threading does not know it; what it has locked would stay locked."""
    (apps / "how.py").write_text(HOW)
    command = [sys.executable, "-c", MASTER, "native" if native else "alone"]
    with subprocess.Popen(command, cwd=apps, env=ENVIRONMENT, stdout=subprocess.PIPE) as master:
        try:
            assert select.select([master.stdout], [], [], 30)[0]
            assert master.stdout.readline() == f"{native}\n".encode()
        finally:
            master.send_signal(signal.SIGQUIT)
        assert master.wait(30) == 0


def test_threads_are_counted_where_they_are(monkeypatch):
    tasks = len(list(Path("/proc/self/task").iterdir()))
    assert forks.has_one_thread() == (tasks == 1)
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(PermissionError()))
    assert not forks.has_one_thread()
