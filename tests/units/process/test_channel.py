"""Owns: the channel's framing, its limits in both directions, and the hello."""

import errno
import fcntl
import os
import resource
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..harness import ready

LONG = "-EMSGSIZE"  # stands for a line that was thrown away


class Channel:
    """One end of a socketpair with a struct rc_channel on it; `peer` is the worker's."""

    def __init__(self, ffi, lib):
        self.ffi, self.lib = ffi, lib
        self.struct = ffi.new("struct rc_channel *")
        self.sock, self.peer = socket.socketpair()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lib.rc_channel_free(self.struct)
        self.sock.close()
        self.peer.close()

    def read(self):
        return self.lib.rc_channel_read(self.struct, self.sock.fileno())

    def line(self):
        """A line, LONG, or None when none is complete."""
        text, length = self.ffi.new("const char **"), self.ffi.new("size_t *")
        complete = self.lib.rc_channel_has_line(self.struct)
        state = self.lib.rc_channel_line(self.struct, text, length)
        if state == -errno.EMSGSIZE:
            return LONG
        assert state in (0, 1)
        assert state == 0 or complete
        return bytes(self.ffi.buffer(text[0], length[0])) if state else None

    def receive(self):
        """Everything that is there now, as lines."""
        lines = []
        while True:
            got = self.read()
            while (line := self.line()) is not None:
                lines.append(line)
            if got == 0:
                return lines

    def feed(self, data, step=1 << 15):
        """The worker writes `data`; the lines that come out."""
        lines = []
        for at in range(0, len(data), step):
            self.peer.sendall(data[at : at + step])
            lines += self.receive()
        return lines

    def send(self, line):
        return self.lib.rc_channel_send(self.struct, self.sock.fileno(), line, len(line))

    def flush(self):
        return self.lib.rc_channel_flush(self.struct, self.sock.fileno())

    @property
    def room(self):
        return getattr(self.struct, "in").room


@pytest.fixture
def channel(ffi, lib):
    with Channel(ffi, lib) as channel:
        yield channel


# ---- in ------------------------------------------------------------------------------


def test_a_line_may_be_cut_at_every_byte(ffi, lib):
    data = b'{"cmd":"ready"}\n\n{}\n \n\n\xff\x00\n'
    lines = [line for line in data.split(b"\n") if line]
    for cut in range(len(data) + 1):
        with Channel(ffi, lib) as channel:
            got = channel.feed(data[:cut]) + channel.feed(data[cut:])
            assert got == lines
    with Channel(ffi, lib) as channel:
        assert channel.feed(data, step=1) == lines


def test_an_unfinished_line_is_not_given_out(channel):
    assert channel.feed(b"half") == []
    assert channel.feed(b" a line\nand") == [b"half a line"]
    channel.peer.close()
    assert channel.receive() == []
    assert channel.struct.finished


@settings(database=None, deadline=None, max_examples=150)
@given(
    lines=st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_any_chunking_gives_the_same_lines(ffi, lib, lines, sizes):
    data = b"".join(line + b"\n" for line in lines)
    with Channel(ffi, lib) as channel:
        got, at = [], 0
        while at < len(data):
            for size in sizes:
                got += channel.feed(data[at : at + size])
                at += size
        assert got == [line for line in lines if line]


def test_the_longest_line_is_taken_and_one_byte_more_is_not(channel, lib):
    longest = b"x" * lib.RC_LINE_MAX
    assert channel.feed(longest + b"\n") == [longest]
    assert channel.feed(longest + b"y\n") == [LONG]
    assert channel.feed(b"next\n") == [b"next"]


@pytest.mark.parametrize("step", [1000, 1 << 14, 1 << 16])
def test_each_long_line_is_reported_once_and_the_next_is_whole(channel, lib, step):
    long = b"x" * (3 * lib.RC_LINE_MAX + 17)
    data = b"a\n" + long + b"\nb\n" + long + b"\n\n" + long + b"\nc\n"
    assert channel.feed(data, step) == [b"a", LONG, b"b", LONG, LONG, b"c"]
    assert not channel.struct.discarding


def test_a_long_line_may_end_with_the_first_byte_that_is_read_after_it(channel, lib):
    assert channel.feed(b"x" * (lib.RC_LINE_MAX + (1 << 15))) == [LONG]
    assert channel.struct.discarding
    assert channel.feed(b"\nnext\n") == [b"next"]


def test_a_flood_without_newline_costs_a_bounded_buffer(channel, lib):
    assert channel.feed(b"x" * (8 * lib.RC_LINE_MAX)) == [LONG]
    assert channel.room <= 2 * lib.RC_LINE_MAX


def test_nothing_to_read_is_not_the_end(channel):
    assert channel.read() == 0
    assert not channel.struct.finished
    channel.peer.sendall(b"last\n")
    channel.peer.close()
    assert channel.receive() == [b"last"]
    assert channel.struct.finished


def test_a_reset_is_the_end(channel):
    channel.send(b"never read")
    channel.peer.close()  # with unread bytes: ECONNRESET
    assert channel.receive() == []
    assert channel.struct.finished


# ---- out -----------------------------------------------------------------------------


def received(peer):
    peer.setblocking(False)
    data = b""
    try:
        while chunk := peer.recv(1 << 20):
            data += chunk
    except BlockingIOError:
        pass
    return data


def test_a_sent_line_arrives_with_its_newline(channel):
    assert channel.send(b"one") == 0
    assert channel.send(b"") == 0
    assert received(channel.peer) == b"one\n\n"


def test_a_newline_within_a_line_is_refused(channel):
    for line in (b"\n", b"a\nb", b"a\n", b"\na"):
        assert channel.send(line) == -errno.EINVAL
    assert received(channel.peer) == b""


def test_the_queue_takes_a_line_whole_or_not_at_all(channel, lib):
    line, accepted, state = b"%07d" + b"x" * 4000, 0, 0
    while (state := channel.send(line % accepted)) >= 0:
        accepted += 1
    assert state == -errno.ENOBUFS
    out = channel.struct.out
    assert lib.RC_SEND_MAX - len(line % 0) - 1 < out.end - out.start <= lib.RC_SEND_MAX
    assert channel.send(line % 0) == -errno.ENOBUFS

    data = received(channel.peer)
    while channel.flush() == 1:
        data += received(channel.peer)
    data += received(channel.peer)
    assert data == b"".join(line % number + b"\n" for number in range(accepted))
    assert channel.send(b"again") == 0
    assert received(channel.peer) == b"again\n"


def test_a_line_of_the_queue_s_size_fits_and_a_longer_one_does_not(channel, lib):
    assert channel.send(b"x" * lib.RC_SEND_MAX) == -errno.ENOBUFS
    assert channel.send(b"x" * (lib.RC_SEND_MAX - 1)) in (0, 1)
    data = received(channel.peer)
    while channel.flush():
        data += received(channel.peer)
    data += received(channel.peer)
    assert len(data) == lib.RC_SEND_MAX and data.endswith(b"x\n")


def test_a_worker_that_reads_slowly_gets_everything(channel):
    sent = b""
    while channel.flush() == 0:
        line = b"%d" % len(sent)
        channel.send(line)
        sent += line + b"\n"
    data = b""
    while channel.flush():
        data += channel.peer.recv(100)
    assert data + received(channel.peer) == sent


def test_sending_to_a_closed_channel_is_an_error_and_no_signal(channel):
    channel.peer.close()
    assert channel.send(b"x") == -errno.EPIPE
    assert channel.struct.out.start == channel.struct.out.end


# ---- the hello -------------------------------------------------------------------------


def hello(ffi, lib, fd):
    """(result, error, door) of rc_channel_hello."""
    got, door = ffi.new("struct rc_hello *"), ffi.new("int *", -1)
    return lib.rc_channel_hello(fd, got, door), got.error, door[0]


def test_the_hello_carries_the_door_closed_on_exec(ffi, lib, channel):
    read_end, write_end = os.pipe()
    assert lib.rc_channel_greet(channel.peer.fileno(), read_end, 0) == 0
    channel.peer.sendall(b"line\n")
    result, error, door = hello(ffi, lib, channel.sock.fileno())
    assert (result, error) == (0, 0)
    assert fcntl.fcntl(door, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.path.sameopenfile(door, read_end)
    assert channel.receive() == [b"line"]
    for fd in (read_end, write_end, door):
        os.close(fd)


def test_a_door_that_finds_no_number_is_told(ffi, lib, channel):
    """It was lost without a word, and the worker's binds answered ENOSYS."""
    assert lib.rc_channel_greet(channel.peer.fileno(), channel.peer.fileno(), 0) == 0
    lowest = os.dup(0)
    os.close(lowest)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        assert hello(ffi, lib, channel.sock.fileno())[0] == -errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_hello_carries_an_error_without_a_door(ffi, lib, channel):
    assert lib.rc_channel_greet(channel.peer.fileno(), -1, errno.EBUSY) == 0
    assert hello(ffi, lib, channel.sock.fileno()) == (0, errno.EBUSY, -1)


def test_no_hello_yet_and_no_hello_ever(ffi, lib, channel):
    assert hello(ffi, lib, channel.sock.fileno())[0] == -errno.EAGAIN
    channel.peer.close()
    assert hello(ffi, lib, channel.sock.fileno()) == (-errno.EPROTO, 0, -1)


def test_what_is_no_hello_is_refused_and_its_descriptor_closed(ffi, lib, channel, fds):
    good = struct.pack("=Ii", lib.RC_HELLO_MAGIC, 0)
    before = fds()
    for data in (b"x", good[:-1], b"\0" * len(good)):
        socket.send_fds(channel.peer, [data], [0])
        result, _, door = hello(ffi, lib, channel.sock.fileno())
        assert (result, door) == (-errno.EPROTO, -1)
    assert fds() == before


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_hostile_hello_with_more_descriptors_leaks_none(ffi, lib, channel, fds, count):
    before = fds()
    good = struct.pack("=Ii", lib.RC_HELLO_MAGIC, 0)
    socket.send_fds(channel.peer, [good], [0] * count)
    assert ready(channel.sock)
    _, _, door = hello(ffi, lib, channel.sock.fileno())
    if door >= 0:
        os.close(door)
    assert fds() == before
