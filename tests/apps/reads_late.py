"""Accepts at once, reads only when told: reads_late.py PORT GO [catches].

A connection's thread says "accepted", reads the FIFO GO to its end, and only then the
request. With `catches` it ends at once by a handler of its own when it is told to stop,
as a server that knows of no request does.
"""

import os
import signal
import sys

from http_server import Handler, http


class Late(Handler):
    def handle(self):
        os.write(int(os.environ["NODE_CHANNEL_FD"]), b'"accepted"\n')
        with open(sys.argv[2], "rb") as fifo:
            fifo.read()
        super().handle()


if sys.argv[3:] == ["catches"]:
    signal.signal(signal.SIGTERM, lambda *unused: os._exit(0))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Late).serve_forever()
