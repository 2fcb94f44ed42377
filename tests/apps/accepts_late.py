"""Listens, and accepts only when told: accepts_late.py PORT GO.

Where there is a FIFO GO.WORKER_ID, the worker reads it to its end before it accepts
anything. If that says "leave" it closes its listener and exits, as a server that ends does.
"""

import os
import sys

from http_server import Handler, http

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
go = f"{sys.argv[2]}.{os.environ['WORKER_ID']}"
if os.path.exists(go):
    with open(go) as fifo:
        told = fifo.read()
    if told == "leave":
        server.server_close()
        sys.exit()
server.serve_forever()
