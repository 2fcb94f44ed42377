"""A child that left the worker's process group polls its listening socket: child_polls.py PORT.

It takes what comes, ignores SIGTERM, and its pid is sent over the channel.
"""

import contextlib
import json
import os
import select
import signal
import sys

from http_server import Handler, http

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    server.socket.setblocking(False)
    polling = select.epoll()
    polling.register(server, select.EPOLLIN)
    while True:
        polling.poll()
        with contextlib.suppress(OSError):
            server.socket.accept()[0].close()
os.write(int(os.environ["NODE_CHANNEL_FD"]), json.dumps({"child": child}).encode() + b"\n")
server.serve_forever()
