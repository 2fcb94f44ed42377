"""Does all that a worker's master may be told of: every_event.py PORT OTHER.

Says something, and too much, on its channel; GET /close gives its listener up,
/disconnect asks to be replaced, /other tries to bind OTHER. With DROPS in its environment
it has the rights of nobody, with SILENT it says nothing. Boots slowly where there is a
file `slow`, and goes to the background, once, where there is one `background`.
"""

import contextlib
import http.server
import json
import os
import socket
import sys
import threading
import time


def put(data):
    while data:
        data = data[os.write(int(os.environ["NODE_CHANNEL_FD"]), data) :]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/close":
            server.socket.close()
        elif self.path == "/disconnect":
            put(b'{"cmd": "disconnect"}\n')
        elif self.path == "/other":
            with socket.socket() as other, contextlib.suppress(OSError):
                other.bind(("127.0.0.1", int(sys.argv[2])))
        body = json.dumps({"worker": os.environ["WORKER_ID"], "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/close":
            threading.Event().wait()

    def log_message(self, *args):
        pass


if "SILENT" not in os.environ:
    put(b'{"hello": "master"}\n' + b"x" * 1_100_000 + b"\n")
if os.path.exists("slow"):
    time.sleep(1)
if os.path.exists("background"):
    os.unlink("background")
    if os.fork():
        os._exit(0)
    os.setsid()
    threading.Event().wait()
if "DROPS" in os.environ:
    "localhost".encode("idna")  # what nobody may not import any more, perhaps
    os.setgid(65534)
    os.setuid(65534)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.handle_error = lambda request, address: None  # a client that did not wait
server.serve_forever()
