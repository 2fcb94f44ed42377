"""--preload: one import for all workers of a generation (mold/)."""

import os
import re
import signal
import subprocess
import sys

import pytest
from harness import ENVIRONMENT, Pidfd, Running, descendants, edit, kept, links, survivors, until
from preloadcase import CODE, FAST, answers_of, imports, in_a_container, molds, running

RELOADS = int(os.environ.get("RELOADS", "30"))
KERNEL = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups()))


@pytest.mark.parametrize("place", [None, in_a_container])
def test_one_import_for_each_generation(place, where):
    with running(where, preexec_fn=place) as cluster:
        cluster.wait_each("ready", 3)
        (first,) = imports(where)
        assert first[0] == "1" and first[2] == "none"
        assert molds(cluster) == [int(first[1])]
        for facts in answers_of(cluster, 3):
            assert facts["parent"] == cluster.process.pid
            assert facts["group"] == facts["pid"] == cluster.pids()[int(facts["slot"])]
            assert facts["argv"][0] == "server.py" and facts["main"] == str(where / "server.py")
            assert facts["version"] == facts["generation"] == "1"
        edit(where / "code_of_it.py", 'VERSION = "1"', 'VERSION = "2"')
        assert cluster.reload()["ok"]
        assert [one[0] for one in imports(where)] == ["1", "2"]
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"2"}
        assert not survivors([Pidfd(int(first[1]))], 10.0)  # the old mold has gone
        assert molds(cluster) == [int(imports(where)[1][1])]
        assert cluster.end() == 0


@pytest.mark.parametrize("place", [None, in_a_container])
def test_a_respawn_gets_the_code_of_its_generation(place, where):
    with running(where, preexec_fn=place) as cluster:
        cluster.wait_each("ready", 3)
        edit(where / "code_of_it.py", 'VERSION = "1"', 'VERSION = "2"')
        os.kill(cluster.pids()[1], signal.SIGKILL)
        cluster.wait_for("ready", slot=1, generation=1, where=lambda e: e["pid"] != 0)
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"1"}
        assert len(imports(where)) == 1
        assert cluster.end() == 0


def test_a_failing_import_fails_the_reload_after_one(where):
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        before = cluster.pids()
        edit(where / "code_of_it.py", 'VERSION = "1"', "VERSION = str(1 / 0)")
        outcome = cluster.reload()
        assert not outcome["ok"] and not outcome["changed"]
        assert "ZeroDivisionError: division by zero" in outcome["why"]
        assert cluster.count("online", generation=2) == 0  # not one worker was started
        assert "ZeroDivisionError" in cluster.stderr() and "code_of_it.py" in cluster.stderr()
        assert cluster.pids() == before
        assert cluster.stderr().count("Traceback") == 1
        edit(where / "code_of_it.py", "str(1 / 0)", '"3"')
        assert cluster.reload()["ok"]
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"3"}
        assert cluster.end() == 0


LAZY = """
class Settings:
    @property
    def __class__(self):
        raise RuntimeError("not configured yet")

settings = Settings()
"""


def test_an_object_that_will_not_be_asked_what_it_is(where):
    """django.conf.settings is one: each look at `__class__` runs code of its own."""
    with (where / "code_of_it.py").open("a") as file:
        file.write(LAZY)
    with running(where, "--ready-timeout", 20) as cluster:
        cluster.wait_each("ready", 3)
        assert len(imports(where)) == 1
        assert cluster.end() == 0


def test_a_mold_that_is_killed_takes_nobody_with_it(where):
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        before = cluster.pids()
        (mold,) = molds(cluster)
        ended = Pidfd(mold)
        os.kill(mold, signal.SIGKILL)
        assert ended.is_dead(10.0)
        assert {facts["pid"] for facts in answers_of(cluster, 3)} == set(before.values())
        os.kill(before[2], signal.SIGKILL)
        after = cluster.wait_for("ready", slot=2, where=lambda e: e["pid"] != before[2])
        assert len(imports(where)) == 2 and molds(cluster) not in ([], [mold])
        assert after["generation"] == 1
        assert cluster.end() == 0


@pytest.mark.parametrize(
    "what, why",
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os._exit(5)", "the mold exited with code 5"),
        ("import os; os.kill(os.getpid(), 9)", "the mold was ended by signal 9"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "import threading; threading.Thread(target=threading.Event().wait).start(); 1 / 0",
            "ZeroDivisionError",
        ),
    ],
)
def test_imports_that_end_the_mold(what, why, where):
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        before = cluster.pids()
        edit(where / "code_of_it.py", 'VERSION = "1"', f'VERSION = "2"; {what}')
        outcome = cluster.reload()
        assert not outcome["ok"] and why in outcome["why"], outcome
        assert cluster.pids() == before
        assert cluster.end() == 0


def test_an_import_that_hangs(where):
    with running(where, "--ready-timeout", 2) as cluster:
        cluster.wait_each("ready", 3)
        edit(where / "code_of_it.py", 'VERSION = "1"', "import threading; threading.Event().wait()")
        outcome = cluster.reload()
        assert not outcome["ok"] and not outcome["changed"]
        # The one of the generation that serves is left, and nobody of the other.
        until(lambda: molds(cluster) == [int(imports(where)[0][1])])
        assert cluster.end() == 0


def test_a_shutdown_while_it_imports(where):
    (where / "code_of_it.py").write_text(f"{CODE}\nimport threading; threading.Event().wait()")
    with running(where) as cluster:
        until(lambda: (where / "imports").exists() and imports(where))
        (mold,) = molds(cluster)
        ended = Pidfd(mold)
        assert cluster.end() == 0
        assert ended.is_dead(10.0)


def test_a_newer_reload_while_one_imports(where):
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        edit(where / "code_of_it.py", "VERSION", "WAITS")
        with (where / "code_of_it.py").open("a") as file:
            file.write("\nimport threading; threading.Event().wait()")
        cluster.signal(signal.SIGUSR2)
        until(lambda: len(molds(cluster)) == 2)
        fresh = where / "fresh.py"
        fresh.write_text(CODE.replace('"1"', '"3"') + "\n# of another size")
        fresh.replace(where / "code_of_it.py")
        cluster.signal(signal.SIGUSR2)
        assert "superseded" in cluster.wait_for("reload", ok=False)["why"]
        assert cluster.wait_for("reload", ok=True)["generation"] == 3
        assert {facts["version"] for facts in answers_of(cluster, 3)} == {"3"}
        until(lambda: molds(cluster) == [int(imports(where)[-1][1])])
        assert cluster.end() == 0


def test_a_worker_has_nothing_of_others(where):
    """Neither the mold's own line, nor older molds', nor other workers' channels."""
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        assert cluster.reload()["ok"]
        cluster.wait_each("ready", 3, generation=2)
        until(lambda: len(molds(cluster)) == 1)
        (mold,) = molds(cluster)
        assert len([one for one in links(mold) if one.startswith("socket:")]) == 1
        for pid in cluster.pids().values():
            # Its channel, and its listener.
            assert len([one for one in links(pid) if one.startswith("socket:")]) == 2
        assert cluster.end() == 0


def test_all_end_with_the_master(where):
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        everybody = [Pidfd(pid) for pid in (*cluster.pids().values(), *molds(cluster))]
        assert len(everybody) == 4
        cluster.process.kill()
        assert not survivors(everybody, 10.0)


def test_a_stopped_mold_is_replaced(where):
    with running(where, "--ready-timeout", 2) as cluster:
        cluster.wait_each("ready", 3)
        (mold,) = molds(cluster)
        ended = Pidfd(mold)
        os.kill(mold, signal.SIGSTOP)
        pid = cluster.pids()[0]
        os.kill(pid, signal.SIGKILL)
        cluster.wait_for("ready", slot=0, where=lambda e: e["pid"] != pid)
        assert ended.is_dead(10.0) and len(imports(where)) == 2
        assert cluster.end() == 0


def test_what_is_sent_before_its_birth_is_heard(where):
    """Behind the word that lets it run."""
    (where / "server.py").write_text(
        "import recluster.worker as worker, code_of_it, threading\n"
        "heard = threading.Event()\n"
        "def listen(message):\n"
        "    if message == 'early':\n"
        "        worker.send([message, worker.id, worker.generation]); worker.ready()\n"
        "worker.on_message(listen)\n"
        "threading.Event().wait()\n"
    )
    (where / "host.py").write_text(
        "import recluster, sys\n"
        "cluster = recluster.Cluster('server.py', workers=2, preload='code_of_it,recluster.worker',"
        " ready_when='ready')\n"
        "told = []\n"
        "def hear(event):\n"
        "    if isinstance(event.details['message'], dict): return\n"
        "    told.append(event.details['message'])\n"
        "    if len(told) == 2: print(sorted(told), flush=True); cluster.terminate()\n"
        "cluster.on('message', hear)\n"
        "cluster.start(subreaper=True)\n"
        "assert cluster.broadcast('early') == 2\n"
        "assert all(worker.pid == 0 for worker in cluster.workers())\n"
        "cluster.wait(30)\n"
    )
    done = subprocess.run(
        [sys.executable, "host.py"], cwd=where, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[['early', 0, 1], ['early', 1, 1]]\n", done.stderr


def test_where_it_cannot_be_is_said(where):
    command = ("--", "/bin/sh", "-c", f"exec {sys.executable} server.py 0")
    with Running("--workers", 1, "--preload", "code_of_it", *command, cwd=where) as cluster:
        cluster.wait_for("ready")
        assert [line for line in cluster.log() if "preload: " in line]
        assert cluster.end() == 0


@pytest.mark.parametrize("how", ["python FILE", "python -m", "script"])
def test_a_command_that_is_python(how, where):
    (where / "script").write_text(f"#!{sys.executable}\n{(where / 'server.py').read_text()}")
    (where / "script").chmod(0o755)
    words = {
        "python FILE": (sys.executable, "server.py"),
        "python -m": (sys.executable, "-m", "server"),
        "script": ("./script",),
    }[how]
    options = ("--workers", 2, *FAST, "--preload", "code_of_it")
    with Running(*options, "--", *words, "0", cwd=where) as cluster:
        cluster.wait_each("ready", 2)
        name = "script" if how == "script" else "server.py"
        for facts in answers_of(cluster, 2):
            assert os.path.samefile(facts["main"], where / name)
            assert facts["argv"][1:] == ["0"]
        assert cluster.reload()["ok"]
        assert len(imports(where)) == 2
        assert cluster.end() == 0


def test_status_and_metrics_show_the_mold(where):
    with running(where) as cluster:
        cluster.wait_each("ready", 3)
        (mold,) = cluster.status()["molds"]
        assert mold["state"] == "ready" and mold["generation"] == 1
        assert [mold["pid"]] == molds(cluster) and mold["rss"] > 1 << 20
        verb = [sys.executable, "-m", "recluster", "status", str(cluster.process.pid)]
        shown = subprocess.run(verb, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        assert f"mold {mold['pid']} of generation 1 ready (" in shown.stdout
        text = subprocess.run(
            [*verb, "--metrics"], env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout
        assert 'recluster_mold_resident_bytes{generation="1"} ' in text
        assert cluster.end() == 0


def test_who_would_gain_by_it_is_told_once(where):
    busy = "import time\nwhile time.process_time() < 1.2: pass\n"
    (where / "code_of_it.py").write_text(CODE + busy)
    with Running("--workers", 2, *FAST, "server.py", "0", cwd=where) as cluster:
        cluster.wait_each("ready", 2)
        assert cluster.reload()["ok"]
        assert len([line for line in cluster.log() if "--preload auto" in line]) == 1
        assert cluster.end() == 0


def test_many_reloads_leave_nothing(where):
    """Neither descriptors of the master's, nor processes."""
    with running(where, "--timeout", 5, "--drain-settle", 0, workers=1) as cluster:
        cluster.wait_for("ready")

        def held():
            return len(kept(cluster.process.pid))

        def rests():
            return len(molds(cluster)) == 1 and len(descendants(cluster.process.pid)) == 3

        assert cluster.reload()["ok"]
        until(rests)
        before = held()
        for _ in range(RELOADS):
            assert cluster.reload()["ok"]
        until(rests)
        assert held() < before + 10
        assert cluster.end() == 0


@pytest.mark.parametrize("subreaper", [True, False])
def test_in_a_library(subreaper, where, program):
    """Without a subreaper workers are init's children."""
    told, _ = program(
        f"""
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        cluster = cluster_of("server.py", preload="code_of_it", respawn=0.1, ready_when="accepting")
        cluster.start(subreaper={subreaper})
        drive_until(cluster, lambda: names().count("ready") == 2)
        first = get(port())
        os.kill(first["pid"], signal.SIGKILL)
        drive_until(cluster, lambda: names().count("ready") == 3)
        cluster.reload()
        drive_until(cluster, lambda: names().count("ready") == 5)
        drive_until(cluster, lambda: "reload" in names())
        ended = next(details for name, worker, details in seen if name == "exit")
        second = get(port())
        assert second["generation"] == "2" and second["group"] == second["pid"]
        cluster.terminate()
        assert cluster.wait(30)
        print(json.dumps([ended["signal"], ended["code"], first["parent"] == os.getpid()]))
        """
    )
    assert [line[0] for line in imports(where)] == ["1", "1"]
    if subreaper or KERNEL >= (6, 15):  # before it may have been reaped already
        assert told[:2] == ["SIGKILL", None]
    assert told[2] is subreaper


def test_all_end_with_a_library(where):
    (where / "host.py").write_text(
        "import recluster\n"
        "cluster = recluster.Cluster('server.py', args=['0'], workers=2, preload='code_of_it')\n"
        "seen = []\n"
        "def ready(event):\n"
        "    seen.append(event.worker.pid)\n"
        "    if len(seen) == 2: print(*seen, flush=True)\n"
        "cluster.on('ready', ready)\n"
        "cluster.start()\n"
        "cluster.wait(60)\n"
    )
    host = subprocess.Popen(
        [sys.executable, "host.py"], cwd=where, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    pids = [int(word) for word in host.stdout.readline().split()]
    everybody = [Pidfd(pid) for pid in (*pids, int(imports(where)[0][1]))]
    assert len(everybody) == 3 and not everybody[0].is_dead()
    host.kill()
    host.wait()
    host.stdout.close()
    assert not survivors(everybody, 10.0)
