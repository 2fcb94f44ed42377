"""http.server behind a slow import: imports_late.py PORT GO.

Where there is a FIFO GO.WORKER_ID, the worker reads it to its end before anything else.
"""

import os
import sys

if os.path.exists(f"{sys.argv[2]}.{os.environ['WORKER_ID']}"):
    with open(f"{sys.argv[2]}.{os.environ['WORKER_ID']}", "rb") as fifo:
        fifo.read()

from http_server import Handler, http

os.write(int(os.environ["NODE_CHANNEL_FD"]), b'{"cmd": "ready"}\n')
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
