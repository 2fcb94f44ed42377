"""Listens, and accepts only when told: accepts_late.py PORT GO.

Where there is a FIFO GO.WORKER_ID, the worker reads it to its end before it accepts
anything. If that says "leave" it closes its listener and exits, as a server that ends does.
"""

import os
import select
import sys

from http_server import Handler, http

go = f"{sys.argv[2]}.{os.environ['WORKER_ID']}"
fifo = os.open(go, os.O_RDONLY | os.O_NONBLOCK) if os.path.exists(go) else None
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if "NODE_CHANNEL_FD" in os.environ:
    os.write(int(os.environ["NODE_CHANNEL_FD"]), b'"listens"\n')
if fifo is not None:
    select.select([fifo], [], [])
    if os.read(fifo, 100) == b"leave":
        server.server_close()
        sys.exit()
server.serve_forever()
