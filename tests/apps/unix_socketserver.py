"""socketserver.ThreadingUnixStreamServer on argv[1]; it never removes its path."""

import json
import os
import socketserver
import sys

VERSION = "1"


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        facts = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}
        body = json.dumps(facts).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


with Server(sys.argv[1], Handler) as server:
    server.serve_forever()
