"""socketserver with ForkingMixIn, HTTP by hand: socketserver_forking.py PORT."""

import json
import os
import socketserver
import sys

VERSION = "1"


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": PID}
        body = json.dumps(facts).encode()
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)


class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True


if __name__ == "__main__":
    PID = os.getpid()
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
