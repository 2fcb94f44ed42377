"""Mistreats its channel before it serves: floods_channel.py PORT HOW [LINES]."""

import os
import sys

from http_server import Handler, http


def put(data):
    while data:
        data = data[os.write(channel, data) :]


channel = int(os.environ["NODE_CHANNEL_FD"])
how = sys.argv[2]
if how == "lines":
    for number in range(int(sys.argv[3]) if len(sys.argv) > 3 else 20_000):
        put(b'{"number": %d}\n' % number)
elif how == "long":
    for _ in range(100):
        put(b"x" * 1_000_000)
    put(b'\n{"after": "long"}\n')
elif how == "garbage":
    put(b'\xff\xfe\x00\n\n[]\n3\nnull\n{"cmd": 3}\n{"cmd": "no such"}\n{"cmd": \n')
    put(b"[" * 200_000 + b"\n")
    put(b'{"after": "garbage"}\n')
elif how == "deaf":  # never reads what the master sends
    put(b'{"after": "deaf"}\n')
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if how == "half":
    put(b'{"half": ')
elif how == "closes":
    os.close(channel)
server.serve_forever()
