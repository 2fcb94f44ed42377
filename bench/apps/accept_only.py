"""Accepts, says which worker it is in one byte, closes: accept_only.py PORT|3.

3: connections come over descriptor 3 (bench/dispatch_pass.c). Selector loop, as
asyncio and http.server have it, and nothing else.
"""

import contextlib
import os
import selectors
import socket
import sys


def answer(connection):
    with contextlib.suppress(OSError):
        connection.send(bytes([int(os.environ.get("WORKER_ID", "0")) & 255]))
    connection.close()


class Passed:
    """What accepts from descriptor 3, as a listener would."""

    def __init__(self):
        self.pair = socket.socket(fileno=3)
        self.fileno, self.setblocking = self.pair.fileno, self.pair.setblocking

    def accept(self):
        head, descriptors, _, _ = socket.recv_fds(self.pair, 64, 1)
        if not head:
            raise ConnectionAbortedError
        return socket.socket(fileno=descriptors[0]), None


def accepted(listener):
    try:
        while True:
            answer(listener.accept()[0])
    except BlockingIOError:
        return
    except ConnectionAbortedError:  # the master has gone
        sys.exit(0)


def main():
    selector = selectors.DefaultSelector()
    if sys.argv[1] == "3":
        listener = Passed()
    else:
        listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        selector.select()
        accepted(listener)


main()
