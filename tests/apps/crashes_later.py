"""Serves for a second, and crashes between two requests: crashes_later.py PORT."""

import os
import signal
import sys
import time

from http_server import Handler, http

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
end = time.monotonic() + 1
while (left := end - time.monotonic()) > 0:
    server.timeout = left
    server.handle_request()
os.kill(os.getpid(), signal.SIGSEGV)
