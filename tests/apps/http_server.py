"""http.server, as a script: http_server.py PORT."""

import http.server
import json
import os
import sys

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


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
