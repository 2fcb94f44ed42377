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


def passed():
    """The same work as recluster's part in a worker does."""
    from recluster import _engine

    while True:
        try:
            found = _engine.receive_connection(3)
        except OSError:
            sys.exit(0)
        if found is None:
            return
        answer(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=found[0]))


def accepted(listener):
    try:
        while True:
            answer(listener.accept()[0])
    except BlockingIOError:
        return


def main():
    selector = selectors.DefaultSelector()
    if sys.argv[1] == "3":
        selector.register(3, selectors.EVENT_READ)
        work = passed
    else:
        listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)

        def work():
            accepted(listener)

    while True:
        selector.select()
        work()


main()
