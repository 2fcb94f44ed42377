"""Whether nothing is taken out of a lane in which connections wait; times are the test's own."""

import errno

import pytest

from ..harness import Clock, connect, lanes_of_workers, queue_of
from ..programs import WORKS, program

FULL = 2  # of a backlog so long, the kernel lets one more wait


class Stall:
    """A lane, its clients, and looks at it."""

    def __init__(self, engine, backlog=None):
        self.engine, self.clients = engine, []
        self.sock = engine.lane(1)
        if backlog is not None:
            self.sock.listen(backlog)
        engine.steer(1)
        self.lane = lanes_of_workers(engine)[1]

    def come(self, count=1):
        for _ in range(count):
            wanted = queue_of(self.sock) + 1
            self.clients.append(connect(self.sock.getsockname()))
            clock = Clock()
            while queue_of(self.sock) < wanted:
                clock.left_ms()

    def take(self):
        self.sock.accept()[0].close()

    def hangs(self, seconds, queued=None):
        queued = queue_of(self.sock) if queued is None else queued
        return self.engine.lib.rc_lane_hangs(self.lane, queued, round(seconds * 1e6))

    def close(self):
        for one in (*self.clients, self.sock):
            one.close()


@pytest.fixture
def stall(engine):
    stall = Stall(engine)
    stall.come(2)
    yield stall
    stall.close()


STEPS = [step / 10 for step in range(1, 50)]


def test_nothing_is_taken_for_a_second(stall):
    assert [stall.hangs(at) for at in (1, 1.5, 1.9, 2.0)] == [False, False, False, True]


def test_nor_from_a_queue_that_grows(stall):
    assert not stall.hangs(0)
    for at in STEPS[:9]:
        stall.come()
        assert not stall.hangs(at)
    assert stall.hangs(1.0)


def test_a_queue_that_looks_the_same_may_be_another(stall):
    assert not stall.hangs(0)
    for at in STEPS:
        stall.take()
        stall.come()
        assert not stall.hangs(at)


def test_and_so_may_a_full_one(engine):
    """As it is under more load than a server can bear."""
    stall = Stall(engine, FULL)
    stall.come(FULL + 1)
    assert not stall.hangs(0)
    for at in STEPS:
        stall.take()
        stall.come()
        assert not stall.hangs(at)
    assert not stall.hangs(5.0)  # where the watch begins anew, if it had ended with the last
    assert stall.hangs(6.0)
    stall.close()


def test_one_that_comes_between_two_looks_at_the_same_moment_is_no_other(stall):
    """It is one edge, and it is in the next length."""
    queued = queue_of(stall.sock)
    stall.come()
    assert not stall.hangs(0, queued)
    for at in STEPS[:9]:
        queued = queue_of(stall.sock)
        stall.come()
        assert not stall.hangs(at, queued)
    assert stall.hangs(1.0)


def test_what_is_taken_ends_it(stall):
    stall.hangs(0)
    stall.lane.pressure.hung = stall.hangs(1.0)
    assert stall.lane.pressure.hung and stall.hangs(1.1)
    stall.take()
    stall.come()
    assert not stall.hangs(1.2)
    stall.lane.pressure.hung = False


def test_between_two_looks_there_is_some_time(stall):
    """They read /proc, and turns that were asked for are looked at every 5 ms."""
    stall.hangs(0)
    stall.take()
    stall.come()
    assert not stall.hangs(0.04) and stall.lane.stall.arrivals >= 0
    assert not stall.hangs(0.05) and stall.lane.stall.arrivals < 0


@pytest.mark.parametrize("call", ["epoll_create1", "epoll_ctl"])
def test_what_cannot_be_watched_does_not_hang_yet(stall, fault, fds, call):
    before = fds()
    fault.arm(1, errno.EMFILE, call)
    assert not stall.hangs(0)
    assert fault.disarm() == 1 and fds() == before
    assert not stall.hangs(1)
    assert stall.hangs(2)


def test_who_has_no_cpu_has_had_no_time(stall):
    """Seconds have passed by the test's clock, in which it cannot have run for one."""
    with program("print(flush=True)\nwhile True: pass") as process:
        assert process.stdout.readline()
        stall.lane.worker.pid = process.pid
        assert not stall.hangs(0)
        assert not stall.hangs(10)
        stall.lane.worker.pid = 0


def test_who_computes_for_all_that_time_hangs(stall):
    code = "while time.process_time() < 1.5: pass\nprint(flush=True)\nwhile True: pass"
    with program(code) as process:
        stall.lane.worker.pid = process.pid
        assert not stall.hangs(0)
        assert process.stdout.readline()
        assert stall.hangs(10)
        stall.lane.worker.pid = 0


def test_what_an_ended_child_has_run_is_not_asked_for(stall):
    with program("print(flush=True)\nwhile True: pass") as process:
        assert process.stdout.readline()
        stall.lane.worker.pid = process.pid
        assert not stall.hangs(0)
        stall.lane.stall.ran_ns = 1 << 62  # it had run for so long, a child of it included
        assert not stall.hangs(10)
        assert stall.lane.stall.ran_ns < 1 << 62
        stall.lane.worker.pid = 0


def test_who_sleeps_has_had_its_time(stall):
    with program("print(flush=True)\n" + WORKS["reads"]) as process:
        assert process.stdout.readline()
        stall.lane.worker.pid = process.pid
        deadline = Clock(20)
        ran = stall.engine.ffi.new("uint64_t *")
        while stall.engine.lib.rc_wants_cpu(process.pid, ran):
            deadline.left_ms()
        assert not stall.hangs(0)
        assert stall.hangs(1)
        stall.lane.worker.pid = 0
