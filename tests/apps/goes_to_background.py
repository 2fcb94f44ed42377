"""A daemon as of old: forks twice, and the process that was started ends with code 0.

`early`: it listens after that, else before. `closes`: it closes what it has inherited.
A file "foreground" beside it has it stay.
"""

import http.server
import os
import signal
import sys


def daemonize(closes):
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    if closes:
        os.closerange(3, 4096)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it takes SIGKILL


def listen():
    address = ("127.0.0.1", int(sys.argv[1]))
    return http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler)


early, closes = "early" in sys.argv, "closes" in sys.argv
server = None if early else listen()
if not os.path.exists("foreground"):
    daemonize(closes)
(server or listen()).serve_forever()
