"""Ctrl-C between turns: what is there before is there after, whatever goes wrong."""

import errno
import os
import select
import signal

import pytest

from recluster.host.interrupts import Held, Interrupts


@pytest.fixture(autouse=True)
def ours():
    """As in a program that has no handler of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


class Watcher:
    def __init__(self):
        self.watched = {}

    def watch(self, fd, callback):
        self.watched[fd] = callback

    def unwatch(self, fd):
        del self.watched[fd]

    def turn(self):
        for fd in select.select(list(self.watched), [], [], 0)[0]:
            self.watched[fd]()


def test_it_is_raised_between_two_turns():
    watcher = Watcher()
    with pytest.raises(KeyboardInterrupt), Interrupts(watcher) as interrupts:
        interrupts.check()
        os.kill(os.getpid(), signal.SIGINT)
        done = [number for number in range(1000)]  # nothing is raised in here
        watcher.turn()
        assert len(done) == 1000
        interrupts.check()
        pytest.fail("not raised")
    assert not watcher.watched


def test_what_does_not_wait_is_not_interrupted():
    done = False
    with pytest.raises(KeyboardInterrupt), Held():
        os.kill(os.getpid(), signal.SIGINT)
        done = True
    assert done


def test_a_watch_that_is_refused_leaves_nothing_behind():
    class Refuses(Watcher):
        def watch(self, fd, callback):
            raise OSError(errno.ENOMEM, "no")

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no"), Interrupts(Refuses()):
        pytest.fail("it is in")
    assert set(os.listdir("/proc/self/fd")) == before
