"""http.server with prometheus_client's metrics: counts_requests.py PORT."""

import os
import sys

from http_server import Handler, http
from prometheus_client import Counter, Gauge

answered = Counter("app_requests", "Answered.")
alive = Gauge("app_workers", "Alive.", multiprocess_mode="livesum")


class Counting(Handler):
    def do_GET(self):
        answered.inc()
        super().do_GET()


alive.set(1)
print(os.environ["WORKER_ID"], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Counting).serve_forever()
