"""A service manager that keeps descriptors, and masters that are killed under it."""

import os
import socket

from clients import GENEROUS
from harness import Running, survivors
from servicemanager import Manager
from test_inherited import Activated


class Store(Manager):
    """Keeps descriptors by name, as systemd does."""

    def __init__(self, address):
        super().__init__(address)
        self.fds = {}

    def receive(self, timeout=GENEROUS):
        message = super().receive(timeout)
        if "FDSTORE" in message:
            fd = message["fds"].pop()
            assert self.fds.setdefault(message["FDNAME"], fd) == fd
        if "FDSTOREREMOVE" in message:
            os.close(self.fds.pop(message["FDNAME"]))
        return message

    def __exit__(self, *unused):
        for fd in self.fds.values():
            os.close(fd)
        super().__exit__()

    def holds(self, count):
        while len(self.fds) != count:
            self.receive()

    def next_master(self, *args, cwd):
        sockets = [socket.socket(fileno=os.dup(fd)) for fd in self.fds.values()]
        env = self.env(FDSTORE="64", PYTHONFAULTHANDLER="1")
        made = Activated(sockets, *args, cwd=cwd, env=env, names=":".join(self.fds))
        for one in sockets:  # it has its own now
            one.close()
        return made


def killed(running):
    """By SIGKILL, and everything below is gone."""
    pidfds = list(running._pidfds)
    running.process.kill()
    running.wait()
    assert not survivors(pidfds, GENEROUS)


def start(store, *args, cwd):
    return Running(*args, cwd=cwd, env=store.env(FDSTORE="64"))
