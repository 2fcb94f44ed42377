"""--preload: what a module leaves at import is seen, and such a module left to the workers."""

import os

import pytest
from harness import Running, edit
from preloadcase import CODE, FAST, imports, molds

SERVER = """
import sys
import user_of_it
from http_server import Handler, http

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

DOES = {
    "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()": (
        "starts 1 thread"
    ),
    "import subprocess; it = subprocess.Popen(['sleep', '600'])": "starts a process",
    "import socket; it = socket.socket()": "opens a socket",
    "import socket; it = socket.socketpair()": "opens a socket",
    "import select; it = select.epoll()": "opens an epoll",
    "import os; it = os.pipe()": "opens a pipe",
    "import os; it = os.memfd_create('it')": "opens a memfd",
    "import tempfile; it = tempfile.TemporaryFile()": "opens a temporary file",
    "import signal; signal.signal(signal.SIGUSR1, print)": "handles SIGUSR1",
    "import signal; signal.setitimer(signal.ITIMER_REAL, 1e6)": "sets a timer",
    "import os; it = os.environ.get('WORKER_ID')": "reads WORKER_ID",
    "import asyncio; it = asyncio.new_event_loop()": "opens a socket and opens an epoll",
}


def counted(where, name):
    """Who has imported this module."""
    return [line[1] for line in imports(where) if line[0] == name]


@pytest.fixture
def modules(where):
    """server imports user_of_it, and that one a culprit, and one that is innocent."""
    said = CODE.replace('"1"', "__name__")
    (where / "innocent.py").write_text(said)
    (where / "user_of_it.py").write_text(f"import innocent, culprit{said}")
    (where / "server.py").write_text(SERVER)

    def does(what):
        (where / "culprit.py").write_text(f"{said}\n{what}\n")

    return does


@pytest.mark.parametrize("what", DOES)
def test_what_it_leaves_is_seen(what, where, modules):
    modules(what)
    options = ("--workers", 2, *FAST, "--preload", "user_of_it")
    with Running(*options, "server.py", "0", cwd=where) as cluster:
        cluster.wait_each("ready", 2)
        said = f"preload: culprit {DOES[what]}"
        (line,) = [line for line in cluster.log() if said in line]
        assert line.endswith("at import: left to the workers")
        pids = sorted(map(str, cluster.pids().values()))
        (mold,) = map(str, molds(cluster))
        # The mold has begun anew, as the same process, and each worker imports the rest itself.
        assert counted(where, "innocent") == [mold, mold]
        assert sorted(counted(where, "culprit")[1:]) == pids
        assert sorted(counted(where, "user_of_it")[1:]) == pids
        before = len(imports(where))
        assert cluster.reload()["ok"]
        # The next generation's knows it.
        assert sum(line[0] == "innocent" for line in imports(where)[before:]) == 1
        assert len(imports(where)) == before + 5
        assert len([line for line in cluster.log() if said in line]) == 1
        assert cluster.end() == 0


def test_what_does_no_harm_is_shared(where, modules):
    """A file that is read or appended to, all of the environment, a thread that has ended."""
    modules(
        "import os, threading; it = open(__file__); log = open('log', 'a'); dict(os.environ)\n"
        "thread = threading.Thread(target=print); thread.start(); thread.join()"
    )
    options = ("--workers", 2, *FAST, "--preload", "user_of_it")
    with Running(*options, "server.py", "0", cwd=where) as cluster:
        cluster.wait_each("ready", 2)
        assert not [line for line in cluster.log() if "left to the workers" in line]
        assert len(imports(where)) == 3
        assert cluster.end() == 0


def test_a_second_user_of_the_culprit(where, modules):
    """It finds the culprit imported already, and shows only when that is left out."""
    modules("import select; it = select.epoll()")
    edit(where / "user_of_it.py", "import innocent, culprit", "import culprit, other, innocent")
    said = CODE.replace('"1"', "__name__")
    (where / "other.py").write_text(f"{said}\ntry:\n    import culprit\nexcept Exception: pass")
    options = ("--workers", 2, *FAST, "--preload", "user_of_it")
    with Running(*options, "server.py", "0", cwd=where) as cluster:
        cluster.wait_each("ready", 2)
        (mold,) = map(str, molds(cluster))
        assert set(counted(where, "innocent")) == {mold}
        pids = sorted(map(str, cluster.pids().values()))
        assert sorted(set(counted(where, "other")) - {mold}) == pids
        assert cluster.end() == 0


def test_workers_differ_where_they_must(where, modules):
    modules("import random, tempfile, uuid, ssl, secrets")
    (where / "server.py").write_text(
        "import recluster.worker as worker, json, os, user_of_it, threading\n"
        "import random, tempfile, uuid, ssl, secrets\n"
        "worker.send([random.random(), tempfile.mktemp(), str(uuid.uuid4()), secrets.token_hex(),\n"
        "             ssl.RAND_bytes(8).hex(), next(tempfile._get_candidate_names())])\n"
        "worker.ready(); threading.Event().wait()\n"
    )
    options = ("--workers", 8, *FAST, "--preload", "user_of_it", "--ready-when", "ready")
    with Running(*options, "server.py", cwd=where) as cluster:
        told = cluster.wait_each("message", 8, where=lambda e: isinstance(e["message"], list))
        for values in zip(*(event["message"] for event in told.values()), strict=True):
            assert len(set(values)) == 8, values
        assert len(imports(where)) == 3
        assert cluster.end() == 0


@pytest.mark.parametrize(
    "more",
    [
        "numpy.random.seed(1)",
        "numpy.random.seed(1); numpy.random.randn()",  # they come in pairs: one is left over
        "numpy.random.set_bit_generator(numpy.random.PCG64(1))",
    ],
)
def test_numpys_generator_differs(where, modules, more):
    pytest.importorskip("numpy")
    modules(f"import numpy.random; {more}")
    (where / "server.py").write_text(
        "import recluster.worker as worker, os, user_of_it, threading, numpy.random\n"
        "worker.send([numpy.random.randn()]); worker.ready(); threading.Event().wait()\n"
    )
    options = ("--workers", 4, *FAST, "--preload", "user_of_it", "--ready-when", "ready")
    with Running(*options, "server.py", cwd=where) as cluster:
        told = cluster.wait_each("message", 4, where=lambda e: isinstance(e["message"], list))
        assert len({event["message"][0] for event in told.values()}) == 4
        # OpenBLAS has threads; they do no harm.
        assert len(imports(where)) == 3 and os.path.exists(where / "imports")
        assert cluster.end() == 0
