"""A child that left the worker's process group polls its listener: child_polls.py PORT LIFE.

It takes what comes, ignores SIGTERM, and ends when nobody holds the FIFO LIFE open for
writing. Its pid is sent over the channel.
"""

import contextlib
import json
import os
import select
import signal
import sys

from http_server import Handler, http

life = os.open(sys.argv[2], os.O_RDONLY | os.O_NONBLOCK)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    server.socket.setblocking(False)
    polling = select.epoll()
    polling.register(server, select.EPOLLIN)
    polling.register(life, 0)  # EPOLLHUP is always told
    while not any(fd == life for fd, _ in polling.poll()):
        with contextlib.suppress(OSError):
            server.socket.accept()[0].close()
    os._exit(0)
os.write(int(os.environ["NODE_CHANNEL_FD"]), json.dumps({"child": child}).encode() + b"\n")
server.serve_forever()
