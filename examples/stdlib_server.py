"""The standard library's HTTP server: stdlib_server.py [PORT]. Knows nothing of recluster.

Edit VERSION while `python -m recluster stdlib_server.py` runs, then `kill -USR2`
the master: new connections get the new answer.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    wbufsize = -1  # one write per answer

    def do_GET(self):
        facts = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}
        body = json.dumps(facts).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass  # one line per request is too much for a demo


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
