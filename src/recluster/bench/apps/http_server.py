"""The standard library's HTTP server: http_server.py single|threading."""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

FACTS = f"worker={os.environ.get('WORKER_ID')} pid={os.getpid()}\n".encode()


class Handler(BaseHTTPRequestHandler):
    wbufsize = -1  # one write per answer

    def do_GET(self) -> None:
        _, _, ms = self.path.partition("?ms=")
        if ms:
            time.sleep(int(ms) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", str(len(FACTS)))
        self.end_headers()
        self.wfile.write(FACTS)

    def log_message(self, *args: object) -> None:
        pass


class Single(Handler):
    protocol_version = "HTTP/1.0"  # a client that kept its connection would be the only one


class Threading(Handler):
    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    if sys.argv[1] == "single":
        HTTPServer(("127.0.0.1", 0), Single).serve_forever()
    else:
        ThreadingHTTPServer(("127.0.0.1", 0), Threading).serve_forever()
