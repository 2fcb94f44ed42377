"""Two listeners that change numbers after each connection: swaps_numbers.py PORT PORT.

Answers "LISTENER CONNECTION": the port of what it accepted from, and that of what
it got there.
"""

import os
import select
import socket
import sys

listeners = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
poll = select.poll()
while True:
    for listener in listeners:
        poll.register(listener, select.POLLIN)
    number = poll.poll()[0][0]
    listener = next(one for one in listeners if one.fileno() == number)
    listener.setblocking(False)
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    with connection:
        asked, got = listener.getsockname()[1], connection.getsockname()[1]
        connection.sendall(f"{asked} {got}".encode())
    one, other = (listener.fileno() for listener in listeners)
    kept = os.dup(one)
    os.dup2(other, one)
    os.dup2(kept, other)
    os.close(kept)
