"""Clients that ask without a pause, each on one kept connection."""

import threading

from clients import Broken, KeepAlive, Stale
from harness import until


class Asking:
    """Clients that ask again and again on one connection each, until all meet `version`."""

    def __init__(self, port, count):
        self.port, self.stop = port, threading.Event()
        self.versions, self.errors, self.answered = {}, [], 0
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(count)]

    def __enter__(self):
        for one in self.threads:
            one.start()
        return self

    def __exit__(self, *unused):
        self.stop.set()
        for one in self.threads:
            one.join()

    def run(self, client):
        try:
            with KeepAlive(self.port) as connection:
                while not self.stop.is_set():
                    self.versions[client] = connection.ask()["version"]
                    self.answered += 1
        except (Stale, Broken, OSError) as error:
            self.errors.append(error)

    def all_have(self, version):
        until(lambda: self.errors or list(self.versions.values()) == [version] * len(self.threads))
