"""Lines to a descriptor that nobody reads: never waited for, whole or counted."""

import contextlib
import errno
import os
import pty
import select
import socket
import termios
import tty

import pytest

from recluster.output import outlet as outlets
from recluster.output.outlet import Outlet, open_outlet
from recluster.output.sink import ROOM, Sink

LINE = b"%08d " + b"x" * 90 + b"\n"
NOT_MINE = "that may not be opened"

# Whoever waits here would wait for ever.
pytestmark = pytest.mark.timeout(60)


def lost(count):
    return b"lost %d\n" % count


def pipe():
    return os.pipe()


def sockets():
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def terminal():
    reader, writer = pty.openpty()
    tty.setraw(writer)
    return reader, writer


KINDS = {"pipe": pipe, "socket": sockets, "terminal": terminal}
WAYS = [*KINDS, f"pipe {NOT_MINE}", f"terminal {NOT_MINE}"]


@pytest.fixture(params=WAYS)
def ends(request, monkeypatch):
    """(what the reader has, an outlet), in each way to write."""
    if NOT_MINE in request.param:

        def refused(path, flags):
            raise PermissionError(errno.EACCES, "refused", path)

        monkeypatch.setattr(outlets.os, "open", refused)
    reader, writer = KINDS[request.param.split()[0]]()
    os.set_blocking(reader, False)
    outlet = open_outlet(writer)
    if NOT_MINE in request.param:
        assert type(outlet) in (outlets._Spliced, outlets._Polled)
    yield reader, outlet
    assert os.get_blocking(writer), "O_NONBLOCK is everybody's"
    outlet.close()
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_all(reader, sink):
    """All that comes, as lines; what waits follows by and by."""
    data = b""
    while True:
        sink._flush()
        if not select.select([reader], [], [], 0)[0]:
            return data.splitlines(keepends=True)
        with contextlib.suppress(BlockingIOError):
            data += os.read(reader, 1 << 16)


def test_what_does_not_fit_is_counted_and_told_in_one_line(ends):
    reader, outlet = ends
    sink, many = Sink(outlet, lost), 30_000
    for number in range(many):
        sink.put(LINE % number)
    assert ROOM // 2 < sink._size <= ROOM
    lines = read_all(reader, sink)
    told = [line for line in lines if line.startswith(b"lost ")]
    assert len(told) == 1
    assert lines[-1] == told[0]
    missing = int(told[0].split()[1])
    assert lines[:-1] == [LINE % number for number in range(many - missing)]
    sink.put(LINE % many)
    assert read_all(reader, sink) == [LINE % many]


def test_what_comes_after_a_loss_comes_after_the_line_that_tells_of_it(ends):
    reader, outlet = ends
    sink = Sink(outlet, lost)
    for number in range(30_000):
        sink.put(LINE % number)
    missing, data = sink._missing, b""
    while sink._missing:  # until there is room
        data += os.read(reader, 1 << 16)
        sink._flush()
    sink.put(b"after\n")
    lines = data.splitlines(keepends=True)
    lines[-1:] = (lines[-1] + b"".join(read_all(reader, sink))).splitlines(keepends=True)
    assert lines[-2:] == [lost(missing), b"after\n"]


def test_longer_lines_than_a_pipe_takes_at_once_come_whole(ends):
    reader, outlet = ends
    sink = Sink(outlet, lost)
    lines = [b"%d" % number * 90_000 + b"\n" for number in range(5)]
    for line in lines:
        sink.put(line)
    assert read_all(reader, sink) == lines


def test_a_line_beyond_all_room_passes_where_nothing_waits(ends):
    reader, outlet = ends
    sink = Sink(outlet, lost)
    line = b"x" * (2 * ROOM) + b"\n"
    sink.put(line)
    sink.put(b"no room\n")
    assert read_all(reader, sink) == [line, lost(1)]


def test_a_reader_that_has_gone_is_no_reader(ends):
    reader, outlet = ends
    sink = Sink(outlet, lost)
    os.close(reader)
    for number in range(30_000):
        sink.put(LINE % number)
    assert sink._size == 0
    assert sink._missing == 30_000
    sink.close(0.0)


class Watched:
    """What a master offers."""

    def __init__(self):
        self.callbacks = {}

    def watch(self, fd, callback):
        self.callbacks[fd] = callback

    def unwatch(self, fd):
        del self.callbacks[fd]

    def turn(self, timeout):
        ready = select.select(list(self.callbacks), [], [], timeout)[0]
        for fd in ready:
            self.callbacks[fd]()
        return bool(ready)


def test_who_watches_is_woken_when_there_is_room_and_only_then(ends):
    reader, outlet = ends
    sink, watched = Sink(outlet, lost), Watched()
    sink.attach(watched)
    sink.put(b"at once\n")
    assert watched.callbacks == {}
    lines = [LINE % number for number in range(8_000)]
    for line in lines:
        sink.put(line)
    while watched.turn(0):
        pass
    assert not watched.turn(0.2), "woken without room"
    data = b""
    while len(data) < 8 + sum(map(len, lines)):
        assert select.select([reader], [], [], 10)[0], "not woken"
        with contextlib.suppress(BlockingIOError):
            data += os.read(reader, 1 << 16)
        while watched.turn(0):
            pass
    assert data == b"at once\n" + b"".join(lines)
    assert not watched.turn(0.2), "woken without work"
    sink.detach()
    assert watched.callbacks == {}


def test_close_waits_for_a_reader_but_not_for_long(ends):
    reader, outlet = ends
    sink = Sink(outlet, lost)
    for number in range(8_000):
        sink.put(LINE % number)
    sink.close(0.05)  # and comes back
    data = b""
    with contextlib.suppress(BlockingIOError, OSError):
        while piece := os.read(reader, 1 << 16):
            data += piece
    assert data.startswith(LINE % 0)


def test_a_terminal_that_is_stopped():
    reader, writer = pty.openpty()
    settings = termios.tcgetattr(writer)
    settings[0] |= termios.IXON
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(writer, termios.TCSANOW, settings)
    os.write(reader, b"\x13")  # ^S
    while select.select([], [writer], [], 0)[1]:  # the kernel's worker has yet to see it
        os.sched_yield()
    outlet = open_outlet(writer)
    sink = Sink(outlet, lost)
    sink.put(b"one\n")
    sink.put(b"two\n")
    assert select.select([reader], [], [], 0.2)[0] == []
    os.write(reader, b"\x11")
    watched = Watched()
    sink.attach(watched)
    data = b""
    while not data.endswith(b"two\r\n"):
        watched.turn(0.01)
        if select.select([reader], [], [], 0)[0]:
            data += os.read(reader, 1 << 16)
    assert data == b"one\r\ntwo\r\n"
    for fd in (reader, writer):
        os.close(fd)
    sink.close(0.0)


class Disk(Outlet):
    """Full, until it has room."""

    def __init__(self):
        super().__init__(-1, -1)
        self.room, self.data = 0, b""

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        taken, self.room = data[: self.room], max(0, self.room - len(data))
        self.data += taken
        return len(taken)


def test_a_full_disk_that_has_room_again():
    disk = Disk()
    sink = Sink(disk, lost)
    disk.room = 150  # half of the second line
    for number in range(20_000):
        sink.put(LINE % number)
    disk.room = 1 << 30
    sink.put(b"after\n")
    lines = disk.data.splitlines(keepends=True)
    missing = int(lines[-1].split()[1])
    assert lines[:-1] == [LINE % number for number in range(20_001 - missing)]


def test_no_space_on_a_real_device():
    with open("/dev/full", "wb", buffering=0) as full:
        sink = Sink(open_outlet(full.fileno()), lost)
        for number in range(30_000):
            sink.put(LINE % number)
        assert sink._missing
        sink.close(1.0)


def test_lost_lines_are_counted_once(ends):
    """Those that did not fit, those that nobody will read; not the line that tells of them."""
    reader, outlet = ends
    sink = Sink(outlet, lost)
    count = 2 * ROOM // len(LINE % 0)
    for number in range(count):
        sink.put(LINE % number)
    missing = sink.lines_lost
    assert missing > 0
    os.close(reader)
    for number in range(count):
        sink.put(LINE % number)
    assert missing < sink.lines_lost <= 2 * count
    sink.close(0)
