"""Listens on each port of its command line, and answers with a line."""

from __future__ import annotations

import selectors
import socket
import sys


def main() -> None:
    waiting = selectors.DefaultSelector()
    for port in map(int, sys.argv[1:]):
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        listener.setblocking(False)
        waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            assert isinstance(key.fileobj, socket.socket)
            try:
                client, _ = key.fileobj.accept()
            except OSError:
                continue
            with client:
                client.setblocking(True)
                client.settimeout(1)
                try:
                    client.sendall(b"here\n")
                except OSError:
                    continue


main()
