"""The API, from small programs that embed a cluster (embedcase.py)."""

import signal

import pytest
from harness import ENVIRONMENT, Pidfd

import recluster


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


def test_restart_drain_and_resume(program):
    found, _ = program("""
        cluster = cluster_of()
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        cluster.restart(0)
        drive_until(cluster, lambda: "exit" in names())
        order = [name for name, worker, _ in seen if name in ("ready", "exit")]
        cluster.drain(1)
        drive_until(cluster, lambda: names().count("exit") == 2)
        empty = [sorted(cluster.active_workers()), cluster.size()]
        try:
            cluster.drain(0)
        except recluster.OptionError as error:
            why = str(error)
        cluster.resume(1)
        drive_until(cluster, lambda: names().count("ready") == 4)
        full = cluster.size()
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps([order, empty, why, full]))
        """)
    order, empty, why, full = found
    assert (order, empty, full) == (["ready", "ready", "ready", "exit"], [[0], 1], 2)
    assert why == "drain: slot 0: no other slot serves"


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


def test_messages_that_cannot_be_sent_say_so(program):
    found, _ = program("""
        cluster = cluster_of(workers=1)
        cluster.start()
        drive_until(cluster, lambda: "ready" in names())
        worker = cluster.workers()[0]
        def tried(call, *arguments):
            try:
                return call(*arguments)
            except (TypeError, ValueError) as error:
                return type(error).__name__
        loop = []
        loop.append(loop)
        deep = {}
        for _ in range(100_000):
            deep = {"a": deep}
        odd = [float("nan"), [float("-inf")], loop, deep, {1, 2}, "x" * (1 << 20)]
        refused = [tried(cluster.send, worker, message) for message in odd]
        refused += [tried(cluster.broadcast, message) for message in odd]
        signals = [tried(cluster.signal, worker, n) for n in (999, -1, 15.5, None)]
        limits = [tried(cluster.scale, n) for n in (0, 10**9, 1.5, True, "x")]
        most = "y" * ((1 << 20) - 3)
        sent = cluster.send(worker, most)
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps([refused, signals, limits, sent]))
        """)
    refused, signals, limits, sent = found
    assert refused == [*["ValueError"] * 4, "TypeError", "ValueError"] * 2
    assert signals == ["ValueError"] * 4
    assert limits == ["OptionError"] * 5
    assert sent is True


def test_scale_asks_the_options_of_its_own_only(program, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "RECLUSTER_BALANCE", "weighted")
    monkeypatch.setitem(ENVIRONMENT, "RECLUSTER_WEIGHTS", "0=3")
    found, _ = program("""
        cluster = cluster_of()
        cluster.start()
        os.environ["RECLUSTER_TIMEOUT"] = "never"
        del os.environ["RECLUSTER_BALANCE"]
        cluster.scale(3)
        drive_until(cluster, lambda: names().count("ready") == 3)
        print(json.dumps(cluster.size()))
        cluster.terminate()
        cluster.wait()
        """)
    assert found == 3


def test_variables_that_name_no_option(program, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "RECLUSTER_WORKER", "3")
    monkeypatch.setitem(ENVIRONMENT, "RECLUSTER_ARGS", "--port 80")
    _, said = program("""
        cluster = cluster_of()
        cluster.start()
        cluster.terminate()
        cluster.wait()
        print(1)
        """)
    assert "RECLUSTER_WORKER names no option; did you mean RECLUSTER_WORKERS?" in said
    assert "RECLUSTER_ARGS names no option" in said


def test_a_listener_that_raises_is_told_of_and_the_next_message_is_heard(program):
    found, said = program("""
        cluster = cluster_of("listeners_raise.py", workers=1)
        cluster.start()
        drive_until(cluster, lambda: "ready" in names())
        for name in ("OSError", "SystemExit", "ValueError"):
            cluster.broadcast(name)
        def told():
            said = [details["message"] for name, _, details in seen if name == "message"]
            return [message for message in said if isinstance(message, list)]
        drive_until(cluster, lambda: len(told()) == 9)
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps(told()))
        """)
    heard = [message for word, message in found if word == "heard"]
    refused = [message for word, message in found if word == "refused"]
    assert heard == ["OSError", "SystemExit", "ValueError"]
    assert refused[1::2] == ["NaN"] * 3
    assert all("a line may have 1048575" in message for message in refused[::2])
    assert "OSError: mine" in said
    assert "ValueError: mine" in said


def test_metrics_in_a_program_of_ones_own(program):
    """The host's child does not keep the listener open, and the host knows the port."""
    told, _ = program(
        """
        import urllib.request
        cluster = cluster_of(metrics="127.0.0.1:0")
        assert cluster.metrics_address is None
        with cluster:
            drive_until(cluster, lambda: names().count("ready") == 2)
            url = f"http://{cluster.metrics_address}/readyz"
            ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]
                    if os.path.exists(f"/proc/self/fd/{fd}")}
            listener = f"socket:[{inode_of(cluster.metrics_address)}]"
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                left = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                        if os.path.lexists(f"/proc/self/fd/{fd}")]
                os.write(write, b"kept" if listener in left else b"gone")
                os._exit(0)
            os.waitpid(child, 0)
            kept = os.read(read, 10).decode()
            import threading
            answer = []
            def ask():
                with urllib.request.urlopen(url) as reply:
                    answer.append(reply.read().decode())
            asking = threading.Thread(target=ask)
            asking.start()
            drive_until(cluster, lambda: answer)
            asking.join()
        print(json.dumps([listener in ours, kept, answer]))
        """.replace("import urllib.request\n", INODE + "import urllib.request\n", 1)
    )
    assert told == [True, "gone", ["ready 2 of 2 slots serve\n"]]


INODE = """def inode_of(address):
            port = int(address.rpartition(":")[2])
            for line in open("/proc/self/net/tcp").readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    return fields[9]

        """
