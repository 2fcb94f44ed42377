"""The API, from small programs that embed a cluster: what a person would write first.

Each program prints one JSON value; the test looks at that.
"""

import json
import signal
import subprocess
import sys
import textwrap

import pytest
from harness import ENVIRONMENT, Pidfd

import recluster

BEGIN = """
import json, os, signal, sys
import recluster
from clients import answers, get

seen = []
def note(event):
    worker = event.worker and (event.worker.id, event.worker.generation)
    seen.append([event.name, worker, event.details])

def names():
    return [name for name, worker, details in seen]

def cluster_of(target="worker_messages.py", **options):
    options = {"workers": 2, "args": ["0"], "ready_when": "ready", "drain_settle": 0.1, **options}
    cluster = recluster.Cluster(target, **options)
    for name in ("online", "listening", "ready", "message", "disconnect", "exit", "reload"):
        cluster.on(name, note)
    return cluster

def drive_until(cluster, condition, seconds=30):
    import select, time
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        assert left > 0, (seen, "too late")
        select.select([cluster.fileno()], [], [], left)
        cluster.dispatch()

def port():
    return next(int(d["address"].split(":")[1]) for name, _, d in seen if name == "listening")
"""


@pytest.fixture
def program(apps, request):
    """Runs such a program; returns what it printed, and its standard error."""

    def run(text, code=0):
        path = str(request.path.parent)
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + textwrap.dedent(text)],
            cwd=apps,
            env={**ENVIRONMENT, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout or "null"), done.stderr

    return run


def test_the_two_lines_of_the_readme(program):
    found, _ = program("""
        cluster = cluster_of(ready_when="listening")
        cluster.on("ready", lambda event: len(cluster.workers()) == 2 and cluster.shutdown())
        code = cluster.run()
        print(json.dumps([code, names().count("online"), names().count("exit")]))
        """)
    assert found == [0, 2, 2]


def test_broadcast_and_send(program):
    found, _ = program("""
        def echoes():
            said = [details["message"] for name, _, details in seen if name == "message"]
            return [message for message in said if "echo" in message]
        cluster = cluster_of()
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        count = cluster.broadcast({"to": "all"})
        drive_until(cluster, lambda: len(echoes()) == 2)
        sent = cluster.send(cluster.active_workers()[1], {"to": "one"})
        drive_until(cluster, lambda: len(echoes()) == 3)
        workers = cluster.workers()
        cluster.shutdown()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps([count, sent, echoes(), cluster.send(workers[0], 1)]))
        """)
    count, sent, echoes, late = found
    assert (count, sent, late) == (2, True, False)
    assert sorted(echoes[:2], key=lambda e: e["from"]) == [
        {"echo": {"to": "all"}, "from": 0},
        {"echo": {"to": "all"}, "from": 1},
    ]
    assert echoes[2] == {"echo": {"to": "one"}, "from": 1}


def test_a_worker_is_told_that_it_is_retired(program):
    found, _ = program("""
        cluster = cluster_of(workers=1, stop_signal="CONT", timeout=60)
        cluster.start()
        drive_until(cluster, lambda: "ready" in names())
        cluster.reload()
        told = {"echo": {"cmd": "disconnect"}, "from": 0}
        drive_until(cluster, lambda: any(d.get("message") == told for _, _, d in seen))
        worker = [w for n, w, d in seen if d.get("message") == told][0]
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps(worker))
        """)
    assert found == [0, 1]


def test_reload_tells_how_it_went(program):
    found, _ = program("""
        cluster = cluster_of()
        with cluster:
            drive_until(cluster, lambda: names().count("ready") == 2)
            told = []
            good = cluster.reload(told.append)
            assert good.wait(30)
            os.replace("syntax_error.py", "worker_messages.py")
            bad = cluster.reload(told.append)
            assert not bad.done and bad.wait(30)
            versions = {worker.generation for worker in cluster.active_workers().values()}
            result = [good.ok, bad.ok, good.generation, bad.why, told == [good, bad]]
            result.append(sorted(versions))
        print(json.dumps(result))
        """)
    good, bad, generation, why, told, versions = found
    assert (good, bad, generation, told, versions) == (True, False, 2, True, [2])
    assert "SyntaxError" in why or "code 1" in why


def test_scale_workers_and_active_workers(program):
    found, _ = program("""
        cluster = cluster_of()
        cluster.start()
        before = [cluster.active_workers(), [w.state for w in cluster.workers()]]
        drive_until(cluster, lambda: names().count("ready") == 2)
        cluster.scale(4)
        drive_until(cluster, lambda: names().count("ready") == 4)
        four = {answer["worker"] for answer in answers(port(), 80)}
        cluster.scale(1)
        drive_until(cluster, lambda: names().count("exit") == 3)
        after = {slot: w.ready for slot, w in cluster.active_workers().items()}
        one = {answer["worker"] for answer in answers(port(), 20)}
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps([before, sorted(four), after, sorted(one), len(cluster.workers())]))
        """)
    assert found[0] == [{"0": None, "1": None}, ["starting", "starting"]]
    assert found[1:] == [["0", "1", "2", "3"], {"0": True}, ["0"], 0]


def test_callbacks_that_raise_break_nothing(program):
    found, stderr = program("""
        def broken(event):
            raise LookupError("of the callback")
        cluster = cluster_of()
        for name in ("online", "listening", "ready", "message", "exit", "reload"):
            cluster.on(name, broken)
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        cluster.reload(broken)
        drive_until(cluster, lambda: "reload" in names())
        ok = [details["ok"] for name, _, details in seen if name == "reload"]
        cluster.terminate(lambda: broken(None))
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps(ok))
        """)
    assert found == [True]
    assert "LookupError: of the callback" in stderr
    assert "Traceback" not in stderr


def test_asyncio(program):
    found, _ = program("""
        import asyncio
        async def main():
            ready = asyncio.Event()
            cluster = cluster_of(workers=1)
            cluster.on("ready", lambda event: ready.set())
            async with cluster:
                await asyncio.wait_for(ready.wait(), 30)
                reader, writer = await asyncio.open_connection("127.0.0.1", port())
                writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
                head, _, body = (await reader.read()).partition(b"\\r\\n\\r\\n")
                writer.close()
            return json.loads(body)["worker"], cluster.exit_code, names().count("exit")
        print(json.dumps(asyncio.run(main())))
        """)
    assert found == ["0", 0, 1]


@pytest.mark.parametrize("when", ["before run", "during run"])
def test_the_programs_own_handler_runs_instead(when, program):
    found, _ = program(f"""
        handled = []
        def own(number, frame):
            handled.append(number)
            cluster.reload()
        def install():
            signal.signal(signal.SIGUSR2, own)
        cluster = cluster_of(workers=1)
        if {when == "before run"}:
            install()
        def ready(event):
            if event.worker.generation == 1:
                install()
                os.kill(os.getpid(), signal.SIGUSR2)
        cluster.on("ready", ready)
        cluster.on("reload", lambda event: os.kill(os.getpid(), signal.SIGTERM))
        code = cluster.run()
        print(json.dumps([code, handled, names().count("reload")]))
        """)
    assert found == [0, [signal.SIGUSR2], 1]


def test_start_leaves_signals_alone(program):
    """An embedded cluster takes none unless asked; the guard cleans up."""
    found, _ = program(
        """
        cluster = cluster_of()
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        print(json.dumps([worker.pid for worker in cluster.workers()]), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """,
        code=-signal.SIGTERM,
    )
    for pidfd in map(Pidfd, found):
        assert pidfd.is_dead(1.0)
        pidfd.close()


def test_with_threads_running(program):
    """Forking would copy their locks: workers get an interpreter of their own."""
    found, _ = program("""
        import threading
        os.environ["HELD"] = "1"
        stop = threading.Event()
        threads = [threading.Thread(target=stop.wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        cluster = cluster_of()
        cluster.start(signals=True)
        drive_until(cluster, lambda: names().count("ready") == 2)
        workers = {answer["worker"] for answer in answers(port(), 40)}
        os.kill(os.getpid(), signal.SIGUSR2)
        drive_until(cluster, lambda: "reload" in names())
        os.kill(os.getpid(), signal.SIGTERM)
        drive_until(cluster, lambda: cluster.exit_code is not None)
        stop.set()
        print(json.dumps([sorted(workers), cluster.exit_code]))
        """)
    assert found == [["0", "1"], 0]


def test_wait_has_a_timeout_and_terminate_is_at_once(program):
    found, _ = program("""
        import time
        called = []
        cluster = cluster_of("never_listens.py", ready_timeout=None)
        cluster.start()
        early = cluster.wait(0.2)
        cluster.terminate(lambda: called.append("end"))
        late = cluster.wait(10)
        signals = [details["signal"] for name, _, details in seen if name == "exit"]
        killed = all(name in ("SIGKILL", "SIGTERM") for name in signals)
        print(json.dumps([early, late, called, killed, len(signals), cluster.exit_code]))
        """)
    assert found == [False, True, ["end"], True, 2, 0]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("no_such_file.py", {}),
        (__file__, {"workers": 0}),
        (__file__, {"workers": True}),
        (__file__, {"timeout": "soon"}),
        (__file__, {"no_such_option": 1}),
        (__file__, {"module": "json"}),
        ([], {}),
        (None, {}),
    ],
)
def test_wrong_options_are_value_errors(target, options):
    with pytest.raises(recluster.OptionError, match="..........") as raised:
        recluster.Cluster(target, **options)
    assert isinstance(raised.value, ValueError)
