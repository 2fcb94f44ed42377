"""A cluster in a program of asyncio: its loop drives it, and nothing stands still."""

import signal
import subprocess
import sys
import textwrap

import pytest
from clients import Broken, connect, read_answer, send_request
from embedcase import BEGIN
from harness import ENVIRONMENT, GENEROUS

SHORT = "def quick(): return cluster_of(workers=1, respawn=0.1)\nimport asyncio\n"


@pytest.fixture
def asynchronous(program):
    def run(text):
        return program(SHORT + textwrap.dedent(text))

    return run


def test_a_reload_is_awaited_while_the_loop_goes_on(asynchronous):
    found, _ = asynchronous("""
        async def main():
            turns = 0
            async def counts():
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1
            async with quick() as cluster:
                counting = asyncio.ensure_future(counts())
                handle = await cluster.reload()
                assert await handle is handle and await cluster.reload()
                counting.cancel()
                os.replace("syntax_error.py", "worker_messages.py")
                bad = await asyncio.wait_for(cluster.reload(), 30)
                both = await asyncio.gather(cluster.reload(), bad)
            print(json.dumps([handle.ok, handle.generation, turns > 10, bad.ok, both[0].ok]))
        asyncio.run(main())
        """)
    assert found == [True, 2, True, False, False]


def test_nothing_waits_in_a_loop_that_runs(asynchronous):
    found, _ = asynchronous("""
        refused = []
        def tried(call):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))
        async def main():
            async with quick() as cluster:
                handle = cluster.reload()
                for call in (handle.wait, handle.wait_serving, cluster.wait, cluster.run):
                    tried(call)
                tried(quick().run)
                tried(quick().__enter__)
                await handle
            print(json.dumps([refused, handle.ok]))
        asyncio.run(main())
        """)
    refused, ok = found
    assert ok
    assert len(refused) == 6
    assert all("async with" in why for why in refused)


def test_coroutine_callbacks_are_awaited(asynchronous):
    found, said = asynchronous("""
        async def main():
            cluster = quick()
            done, told, up = [], [], asyncio.Event()
            @cluster.on("ready")
            async def ready(event):
                await asyncio.sleep(0.01)
                done.append([event.name, event.worker.id])
                up.set()
            @cluster.on("exit")
            async def ended(event):
                for _ in range(100):
                    await asyncio.sleep(0)
                done.append([event.name, event.worker.id])
                raise ValueError("mine")
            async def over(handle):
                await asyncio.sleep(0)
                told.append(handle.ok)
            async with cluster:
                await asyncio.wait_for(up.wait(), 30)
                await cluster.reload(over)
            print(json.dumps([sorted(done), told]))
        asyncio.run(main())
        """)
    assert found == [[["exit", 0], ["exit", 0], ["ready", 0], ["ready", 0]], [True]]
    assert said.count("ended raised ValueError: mine") == 2
    assert "never awaited" not in said


def test_coroutine_callbacks_are_refused_where_nobody_awaits_them(asynchronous):
    found, said = asynchronous("""
        cluster = quick()
        async def late(event): pass
        class Callable:
            async def __call__(self, event): pass
        cluster.on("ready", Callable())
        cluster.on("ready", lambda event: cluster.shutdown())
        cluster.on("exit", late)
        try:
            cluster.run()
        except TypeError as error:
            why = str(error)
        cluster.off("exit", late)
        cluster.wait()
        print(json.dumps(why))
        """)
    assert "late" in found and "is a coroutine function" in found
    assert "is a coroutine function, and no event loop runs here" in said
    assert "never awaited" not in said


def test_the_end_is_awaited(asynchronous):
    found, _ = asynchronous("""
        async def main():
            async with quick() as cluster:
                cluster.on("ready", lambda event: cluster.shutdown())
                codes = await asyncio.gather(cluster.ended(), cluster.ended())
                codes.append(await cluster.ended())
                open_one = cluster.exit_code
            print(json.dumps([codes, open_one]))
        asyncio.run(main())
        """)
    assert found == [[0, 0, 0], 0]


def test_a_handle_is_told_of_the_end(asynchronous):
    found, _ = asynchronous("""
        async def main():
            cluster = quick()
            async with cluster:
                handle = cluster.reload()
                cluster.terminate()
                await handle
            print(json.dumps([handle.done, handle.ok, bool(handle.why)]))
        asyncio.run(main())
        """)
    assert found == [True, False, True]


INTERRUPTED = """
cluster = cluster_of("slow_server.py", workers=1, ready_when="accepting", args=["0"])
def up(event):
    print("ready", port(), flush=True)
cluster.on("ready", up)
cluster.on("exit", lambda event: print("exit", event.code, event.signal, flush=True))
"""
BODIES = {
    "async with": """
import asyncio
async def main():
    async with cluster:
        await asyncio.sleep(3600)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
""",
    "with": """
try:
    with cluster:
        cluster.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
""",
    "with, run": """
with cluster:
    print("code", cluster.run(), flush=True)
""",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_drains_and_a_second_one_ends_it(body, times, apps, request):
    """A request is under way: it is answered, or, after the second, cut."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", BEGIN + INTERRUPTED + BODIES[body]],
        cwd=apps,
        env={**ENVIRONMENT, "PYTHONPATH": str(request.path.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        word, port = process.stdout.readline().split()
        assert word == "ready"
        with connect(int(port)) as connection:
            send_request(connection, "/2" if times == 1 else "/3600")
            process.send_signal(signal.SIGINT)
            if times == 1:
                assert read_answer(connection)["worker"] == "0"
            else:
                assert any("shutting down" in line for line in process.stderr)
                process.send_signal(signal.SIGINT)
                with pytest.raises((Broken, OSError)):
                    read_answer(connection)
        said, wrong = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    last = "code 0" if "run" in body else "interrupted"
    how = "SIGTERM" if times == 1 else "SIGKILL"
    assert said.splitlines() == [f"exit None {how}", last]
    assert process.returncode == 0, wrong


def test_ctrl_c_in_a_callback_is_raised_when_the_turn_is_over(apps, request):
    """Not in the middle of what the engine has told; workers inherit nothing of that."""
    after = """
import pathlib
cluster = cluster_of("slow_server.py", ready_when="accepting", args=["0"])
def interrupt(event):
    signal.raise_signal(signal.SIGINT)
    print("goes on", flush=True)
cluster.on(sys.argv[1], interrupt)
pids = []
cluster.on("online", lambda event: pids.append(event.worker.pid))
try:
    with cluster:
        cluster.wait()
except KeyboardInterrupt:
    print("interrupted", len(pids), [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()])
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    for event in ("online", "ready"):
        done = subprocess.run(
            [sys.executable, "-u", "-c", BEGIN + after, event],
            cwd=apps,
            env={**ENVIRONMENT, "PYTHONPATH": str(request.path.parent)},
            capture_output=True,
            text=True,
            timeout=GENEROUS,
        )
        assert done.stdout.splitlines()[-1] == "interrupted 2 []", done
        assert set(done.stdout.splitlines()[:-1]) == {"goes on"}, done


def test_a_wait_after_the_end_is_over_at_once(apps, request):
    after = """
cluster = cluster_of("slow_server.py", ready_when="accepting", args=["0"])
with cluster:
    cluster.terminate()
    print(cluster.wait(), cluster.wait(), cluster.exit_code)
print(cluster.wait())
"""
    done = subprocess.run(
        [sys.executable, "-u", "-c", BEGIN + after],
        cwd=apps,
        env={**ENVIRONMENT, "PYTHONPATH": str(request.path.parent)},
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["True", "True", "0", "True"]), done
