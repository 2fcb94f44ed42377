"""Serves one request, then dies by a signal of its own: crashes_after_ready.py PORT."""

import os
import signal
import sys

from http_server import Handler, http

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.handle_request()
os.kill(os.getpid(), signal.SIGABRT)
