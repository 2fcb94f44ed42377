"""http.server that makes sure that its port is free, as CherryPy does: checks_port.py PORT."""

import socket
import sys

from http_server import Handler, http

with socket.socket() as probe:
    if probe.connect_ex(("127.0.0.1", int(sys.argv[1]))) == 0:
        sys.exit(70)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
