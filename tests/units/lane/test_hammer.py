"""Owns: groups under load, from threads that do nothing but connect.

Whoever accepts says its name, so each client knows where it came.
"""

import contextlib
import queue
import select
import socket
import threading

import pytest

from ..harness import Clock, connect, queue_of, ready, stream

THREADS = 4
ANSWER_MS = 8000  # a SYN may be dropped twice: 1 s and 2 s
REFUSED = 0


class Load:
    """Clients, and one acceptor of all lanes. `live` tells which lane was the live
    one, the newest last; a client may come to any that was so while it connected."""

    def __init__(self, address):
        self.address, self.stop = address, threading.Event()
        self.live, self.settled = [], -1
        self.came, self.wrong = queue.Queue(), queue.Queue()
        self.lanes, self.poll = {}, select.poll()
        self.clients = [threading.Thread(target=self._connect) for _ in range(THREADS)]
        self.acceptor = threading.Thread(target=self._accept)

    def __enter__(self):
        for thread in (self.acceptor, *self.clients):
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in (*self.clients, self.acceptor):
            thread.join()
        for _, lane in self.lanes.values():
            lane.close()

    def serve(self, name, lane):
        """Accepts from a lane, by a dup: the test may close its own."""
        lane = lane.dup()
        self.lanes[lane.fileno()] = (name, lane)
        self.poll.register(lane, select.POLLIN)

    def steer(self, engine, name):
        self.live.append(name)
        engine.steer(name)
        self.settled = len(self.live) - 1

    def served(self, name, count):
        """Waits until `count` more came to `name`, or something went wrong."""
        clock = Clock(30)
        while count and self.wrong.empty():
            count -= self.came.get(timeout=clock.left_ms() / 1000) == name

    def _accept(self):
        while not self.stop.is_set() or any(client.is_alive() for client in self.clients):
            for fd, events in self.poll.poll(20):
                name, lane = self.lanes[fd]
                if events & select.POLLHUP:  # it was removed
                    self.poll.unregister(fd)
                    continue
                with contextlib.suppress(OSError):
                    connection, _ = lane.accept()
                    connection.send(b"%d" % name)
                    connection.close()

    def _connect(self):
        while not self.stop.is_set():
            first = self.settled
            try:
                name = self._visit()
            except ConnectionRefusedError:
                name = REFUSED
            except OSError as error:
                name = repr(error)
            if name not in (self.live[first:] if first >= 0 else [REFUSED, *self.live]):
                self.wrong.put(f"{name}, live were {self.live[max(first, 0) :]}")
            self.came.put(name)

    def _visit(self):
        with connect(self.address, ANSWER_MS) as client:
            if not ready(client, select.POLLIN, ANSWER_MS):
                return "nobody accepts"
            return int(client.recv(9) or -1)


def test_none_is_lost_while_lanes_go_and_the_live_one_moves(engine):
    lanes = {1: engine.lane(1)}
    address = lanes[1].getsockname()
    lanes |= {number: engine.lane(number, address) for number in range(2, 9)}
    with Load(address) as load:
        for name, lane in lanes.items():
            load.serve(name, lane)
        for victim in range(1, 9):
            newest = 10 + victim  # the last of the group, so it moves into the hole
            lanes[newest] = engine.lane(newest, address)
            load.serve(newest, lanes[newest])
            load.steer(engine, newest)
            load.served(newest, 100)
            lanes.pop(victim).close()
            engine.bury(victim)
            load.served(newest, 100)
    assert list(load.wrong.queue) == []
    for lane in lanes.values():
        lane.close()


@pytest.mark.parametrize("live_before", [False, True])
def test_all_that_come_to_a_new_group_come_to_its_lane(new_engine, live_before):
    for _ in range(5 if not live_before else 20):
        engine = new_engine()
        worker, lane = engine.worker(1), stream(socket.AF_INET, socket.SO_REUSEADDR)
        address = engine.bind(worker, lane)
        if live_before:
            engine.steer(1)
        with Load(address) as load:
            load.served(REFUSED, 20)
            load.live.append(1)
            assert engine.listen(worker, lane)
            load.serve(1, lane)
            load.steer(engine, 1)
            load.served(1, 50)
        assert list(load.wrong.queue) == []
        with engine.sink() as sink:
            assert queue_of(sink) == 1
        lane.close()
