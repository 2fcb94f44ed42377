"""socketserver, answers RLIMIT_NOFILE of its process: reports_limit.py PORT."""

import json
import os
import resource
import socketserver
import sys


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        body = json.dumps({"worker": os.environ["WORKER_ID"], "limit": limit}).encode()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


class Server(socketserver.TCPServer):
    allow_reuse_address = True


with Server(("127.0.0.1", int(sys.argv[1])), Answer) as server:
    server.serve_forever()
