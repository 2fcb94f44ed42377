"""Says what accept, getpeername and getsockname gave: names_server.py FAMILY PORT.

FAMILY: 4, 6, or dual (an IPv6 listener that takes IPv4 too). Blocking accepts.
"""

import json
import os
import socket
import sys

FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6, "dual": socket.AF_INET6}
HOSTS = {"4": "127.0.0.1", "6": "::1", "dual": "::"}

kind = sys.argv[1]
listener = socket.socket(FAMILIES[kind])
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
if kind != "4":
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, kind == "6")
listener.bind((HOSTS[kind], int(sys.argv[2])))
listener.listen(5)
while True:
    connection, peer = listener.accept()
    facts = {
        "worker": os.environ["WORKER_ID"],
        "accept": peer,
        "peer": connection.getpeername(),
        "name": connection.getsockname(),
        "listener": listener.getsockname(),
        "family": connection.family,
        "blocking": connection.getblocking(),
        "inheritable": connection.get_inheritable(),
        "nodelay": connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
    }
    with connection:
        connection.sendall(json.dumps(facts).encode())
