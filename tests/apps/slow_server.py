"""Answers at once, or after the seconds in the path (/3); dies of SIGTERM: slow_server.py PORT."""

import http.server
import json
import os
import sys
import time

VERSION = "1"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(float(self.path.strip("/") or 0))
        facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
