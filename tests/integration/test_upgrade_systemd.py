"""An upgrade of a master that systemd has given sockets, or whose listeners it keeps."""

import os
import signal

import pytest
from clients import (
    connect,
    get,
)
from ctlcase import FAST
from embedcase import BEGIN  # noqa: F401 - the fixture's
from harness import (
    Running,
)
from test_inherited import Activated, listening
from test_store import Store
from upgradecase import upgrade


@pytest.mark.parametrize("reuse", [True, False])
def test_a_socket_of_systemd_is_served_on(apps, reuse):
    given = listening(reuse=reuse)
    port = given.getsockname()[1]
    with given, Activated([given], *FAST, "http_server.py", port, cwd=apps) as running:
        running.wait_each("ready", 2)
        workers = running.pids()
        for _ in range(2):
            upgrade(running)
            assert get(port)["pid"] in running.pids().values() and running.pids() == workers
        os.kill(workers[0], signal.SIGKILL)
        running.wait_for("ready", slot=0, where=lambda one: one["pid"] != workers[0])
        assert running.reload()["ok"]
        get(port)
        assert running.end() == 0
        waiting = connect(port)  # it is systemd's, and open
        waiting.close()


def test_what_systemd_keeps_is_not_given_twice_and_it_is_up_still(apps, tmp_path):
    with Store(str(tmp_path / "notify")) as store:
        words = (*FAST, "http_server.py", "0")
        with Running(*words, cwd=apps, env=store.env(FDSTORE="64")) as running:
            running.wait_each("ready", 2)
            store.holds(2)
            before = len(store.seen)
            upgrade(running)
            assert running.reload()["ok"]
            store.until(lambda message: "READY" in message)
            running.wait_each("exit", 2, generation=1)
            for _ in range(2):
                store.has("FDSTOREREMOVE")
            said = store.seen[before:]
            assert len(store.fds) == sum("FDSTORE" in message for message in said) == 2
            assert running.end() == 0
