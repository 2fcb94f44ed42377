"""Accepts, says which worker it is in one byte, closes: accept_only.py PORT|3.

3: connections come over descriptor 3 (bench/dispatch_pass.c). Selector loop, as
asyncio and http.server have it, and nothing else.
"""

import contextlib
import os
import selectors
import socket
import sys
import weakref


def answer(connection):
    with contextlib.suppress(OSError):
        connection.send(bytes([int(os.environ.get("WORKER_ID", "0")) & 255]))
    connection.close()


def passed():
    """A listener that receives from descriptor 3, by recluster's part in a worker."""
    from recluster import accepting

    known = accepting.install()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=3)
    known[3] = weakref.ref(listener), None
    return listener


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
        listener = passed()
    else:
        listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        selector.select()
        accepted(listener)


main()
