"""Answers each request by name look-ups and a client connection of its own: looks_up.py PORT.

GET /PORT/ connects to that port. With AI_ADDRCONFIG the look-up binds a netlink
socket, as Node's always does.
"""

import http.server
import json
import os
import socket
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        port = int(self.path.strip("/"))
        found = socket.getaddrinfo(
            "localhost", port, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
        )
        socket.gethostbyname("localhost")
        with socket.create_connection(found[0][4]) as connection, connection.makefile() as lines:
            facts = {"worker": os.environ["WORKER_ID"], "said": lines.read()}
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
