"""Forks a child that holds the listening socket: forks_children.py PORT [own-session].

The child never accepts and ignores SIGTERM; with own-session it also leaves the
worker's process group. Its pid is sent over the channel.
"""

import json
import os
import signal
import sys

from http_server import Handler, http

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.argv[2:] == ["own-session"]:
        os.setsid()
    while True:
        signal.pause()
os.write(int(os.environ["NODE_CHANNEL_FD"]), json.dumps({"child": child}).encode() + b"\n")
server.serve_forever()
