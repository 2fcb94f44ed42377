"""One server with several addresses: each is a group of its own, and all of them reload."""

import itertools
import socket

import pytest
from clients import GENEROUS, Load, all_answer, read_answer, send_request
from harness import Running, edit, free_port

HOSTS = ("127.0.0.1", "::1")


def ask(where):
    with socket.create_connection(where, GENEROUS) as connection:
        send_request(connection)
        return read_answer(connection)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_two_ports_of_both_families_are_four_groups(apps):
    ports = free_port(), free_port()
    with Running("--workers", 2, "--timeout", 10, "all_families.py", *ports, cwd=apps) as running:
        # By its last address: "ready" may come at the first one.
        texts = {f"{host}:{port}" for host in ("0.0.0.0", "[::]") for port in ports}
        for slot, text in itertools.product((0, 1), sorted(texts)):
            running.wait_for("listening", slot=slot, address=text)
        lanes = running.status()["lanes"]
        assert {lane["address"] for lane in lanes} == texts
        assert len(lanes) == 2 * len(texts)
        for where in itertools.product(HOSTS, ports):
            names = f"{where[0]}/{where[1]}"
            all_answer(where, [("0", names), ("1", names)], ask, by=("worker", "sockname"))
        with Load((HOSTS[1], ports[1]), ask, clients=2) as load:
            load.more(20)
            edit(apps / "all_families.py", 'VERSION = "1"', 'VERSION = "2"')
            assert running.reload()["ok"]
            for where in itertools.product(HOSTS, ports):
                all_answer(where, ["2"], ask, by=("version",))
            load.more(20)
            assert load.failures() == []
        assert running.end() == 0
