"""Does what it is told, in Python, before it listens (TALK) and at GET /CODE: talks.py PORT."""

import http.server
import os
import sys
import urllib.parse

exec(os.environ.get("TALK", ""))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        exec(urllib.parse.unquote(self.path[1:]))
        body = b'"done"'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
