"""Binds and listens again and again in a storm of signals: signal_storm.py PORT HANDLER.

Then serves on PORT. HANDLER is how SIGALRM is caught: `restart` (SA_RESTART, as asyncio
does and most of C) or `plain` (without it, as signal.signal does). What came of it is
told over the channel.
"""

import json
import os
import signal
import socket
import sys

storm = 0


def caught(*unused):
    global storm
    storm += 1


signal.signal(signal.SIGALRM, caught)
signal.siginterrupt(signal.SIGALRM, sys.argv[2] == "plain")
told = {"errors": [], "not listening": 0, "others listen": 0}
bystander = socket.socket()  # never to listen; its number is used again all the time
rounds = 0
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
while rounds < 40 or (storm < 40 and rounds < 200):
    rounds += 1
    bystander.close()
    bystander = socket.socket()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
    except OSError as error:
        told["errors"].append(type(error).__name__)
    else:
        told["not listening"] += not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    told["others listen"] += bystander.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    listener.close()
signal.setitimer(signal.ITIMER_REAL, 0)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
told["storm"] = storm
os.write(int(os.environ["NODE_CHANNEL_FD"]), json.dumps(told).encode() + b"\n")
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        while lines.readline().strip():
            pass
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
