"""Listens, and is ready only when told: listens_then_ready.py PORT FIFO.

Each worker reads FIFO.WORKER_ID to its end; then it says over the channel, in
plain JSON and without recluster, that it is ready.
"""

import http.server
import json
import os
import sys
import threading

VERSION = "1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def tell_when_told():
    with open(f"{sys.argv[2]}.{os.environ['WORKER_ID']}", "rb") as fifo:
        fifo.read()
    os.write(int(os.environ["NODE_CHANNEL_FD"]), b'{"cmd": "ready"}\n')


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=tell_when_told, daemon=True).start()
server.serve_forever()
