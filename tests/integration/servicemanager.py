"""A notify socket as systemd has one, and what comes to it."""

import array
import os
import select
import socket
import time

from harness import GENEROUS


class Manager:
    """`address` is for NOTIFY_SOCKET. Each datagram is a dict; descriptors are its "fds"."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.seen = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for message in self.seen:
            for fd in message["fds"]:
                os.close(fd)
        self.socket.close()

    def env(self, **more):
        return {"NOTIFY_SOCKET": self.address, **more}

    def receive(self, timeout=GENEROUS):
        assert select.select([self.socket], [], [], timeout)[0], f"nothing came; {self.seen}"
        data, rights, _, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 253))
        fds = array.array("i")
        for _level, _kind, bytes_ in rights:
            fds.frombytes(bytes_[: len(bytes_) - len(bytes_) % fds.itemsize])
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        message["fds"] = list(fds)
        self.seen.append(message)
        return message

    def until(self, wanted, timeout=GENEROUS):
        """The first datagram from now on for which that holds."""
        deadline = time.monotonic() + timeout
        while not wanted(message := self.receive(deadline - time.monotonic())):
            pass
        return message

    def has(self, name, timeout=GENEROUS):
        return self.until(lambda message: name in message, timeout)

    def status(self, text, timeout=GENEROUS):
        return self.until(lambda message: text in message.get("STATUS", ""), timeout)
