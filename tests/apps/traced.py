"""Answers each request in a function that an agent traces; SIGTERM ends it as sys.exit does.

traced.py PORT
"""

import http.server
import os
import signal
import sys

try:
    from opentelemetry import trace
except ImportError:
    trace = None


def answer():
    if trace is not None:
        with trace.get_tracer("traced").start_as_current_span(f"answered by {os.getpid()}"):
            return b"traced"
    return b"untraced"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = answer()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    signal.signal(signal.SIGTERM, lambda *frame: sys.exit(0))
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
