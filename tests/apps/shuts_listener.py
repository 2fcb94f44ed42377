"""Shuts its listener down on SIGUSR1 and stays: shuts_listener.py PORT GO.

Ready when told, as listens_then_ready.py; it tells over the channel when it has done so.
"""

import http.server
import os
import signal
import socket
import sys
import threading

from http_server import Handler

CHANNEL = int(os.environ["NODE_CHANNEL_FD"])


def tell_when_told():
    with open(f"{sys.argv[2]}.{os.environ['WORKER_ID']}", "rb") as fifo:
        fifo.read()
    os.write(CHANNEL, b'{"cmd": "ready"}\n')


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
threading.Thread(target=tell_when_told, daemon=True).start()
threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
signal.sigwait([signal.SIGUSR1])
server.shutdown()  # the loop; then the socket, which stays open
server.socket.shutdown(socket.SHUT_RDWR)
os.write(CHANNEL, b'"shut"\n')
signal.pause()
