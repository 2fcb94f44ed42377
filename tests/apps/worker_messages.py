"""The one server that knows recluster: worker_messages.py PORT.

Says it is ready, sends back what it is sent, and on GET /disconnect asks to be
replaced. A disconnect from the master is sent back too.
"""

import http.server
import json
import os
import sys

from recluster import worker

VERSION = "1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        facts = {"version": VERSION, "worker": str(worker.id), "pid": os.getpid()}
        facts["generation"] = worker.generation
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/disconnect":
            worker.disconnect()

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
worker.on_message(lambda message: worker.send({"echo": message, "from": worker.id}))
worker.ready()
server.serve_forever()
