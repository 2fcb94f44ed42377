"""Waits in accept(2) itself, one connection after the other: accepts_blocking.py PORT."""

import json
import os
import socket
import sys

VERSION = "1"

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
body = json.dumps(facts).encode()
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        while lines.readline().strip():
            pass
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
