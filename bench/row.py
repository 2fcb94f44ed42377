"""Clients, a proxy and a server, each in a network namespace of its own, in a row: two links of
veth, and what is for the server's link goes through the proxy's namespace.

Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, ip(8), nsenter(1) and unshare(1). Namespaces go with the
last process that is in one, and links with them: nothing is left on the machine.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

NEWNET = 0x40000000
PROXY, SERVER = "10.254.0.2", "10.254.1.2"
SET_UP = """
set -e
proxy={proxy} server={server}
ip link set lo up
ip link add front type veth peer name front netns $proxy
ip addr add 10.254.0.1/24 dev front
ip link set front up
ip route add 10.254.1.0/24 via 10.254.0.2
nsenter -t $proxy -n sh -ec "
    ip link set lo up
    ip addr add 10.254.0.2/24 dev front
    ip link set front up
    ip link add back type veth peer name back netns $server
    ip addr add 10.254.1.1/24 dev back
    ip link set back up
    echo 1 > /proc/sys/net/ipv4/ip_forward
"
nsenter -t $server -n sh -ec "
    ip link set lo up
    ip addr add 10.254.1.2/24 dev back
    ip link set back up
    ip route add default via 10.254.1.1
"
"""


def own() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(NEWNET):
        raise OSError(ctypes.get_errno(), "unshare: a network namespace")


class Row:
    """This process, which must have one thread, is the clients' from now on. `at_proxy` and
    `at_server` are words to put before a command."""

    def __init__(self) -> None:
        own()
        self._holders = [
            subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec cat"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(2)
        ]  # fmt: skip
        for one in self._holders:
            assert one.stdout
            one.stdout.readline()  # it is where it is to be
        proxy, server = (str(one.pid) for one in self._holders)
        set_up = SET_UP.format(proxy=proxy, server=server)
        subprocess.run(["sh", "-c", set_up], check=True, env=os.environ)
        self.at_proxy = ["nsenter", "-t", proxy, "-n", "--"]
        self.at_server = ["nsenter", "-t", server, "-n", "--"]

    def end(self) -> None:
        for one in self._holders:
            one.communicate()
