"""http_server.py with HTTP/1.1 and a thread for each connection: keeps_alive.py PORT."""

import http.server
import sys

from http_server import Handler


class Kept(Handler):
    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Kept).serve_forever()
