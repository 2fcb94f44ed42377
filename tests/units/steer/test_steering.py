"""Owns: which lane the steering program returns, on paper and in the kernel."""

import errno
import socket
from fractions import Fraction

import pytest

from ..harness import arrivals, needs_ipv6, spread, stream

LD_RANDOM, SKF_AD_RANDOM = 0x20, (-0x1000 + 56) & 0xFFFFFFFF
MOD, ADD, JGE, JEQ, JA, RET_A, RET_K = 0x94, 0x04, 0x35, 0x15, 0x05, 0x16, 0x06

SHAPES = {
    "one": [(0, 1)],
    "one, not the first": [(7, 3)],
    "contiguous": [(at, at + 1) for at in range(16)],
    "contiguous from 5": [(at, at) for at in range(5, 9)],
    "hole": [(0, 1), (1, 2), (3, 4), (4, 5)],
    "alternate": [(at, at) for at in range(0, 40, 2)],
    "gaps of growing size": [(at * at, at) for at in range(30)],
    "workers in reverse": [(at, 100 - at) for at in range(20)],
    "one worker, three lanes": [(2, 9), (4, 9), (5, 9)],
    "two lanes each": [(at, at // 2) for at in range(20)],
    "two lanes each, interleaved": [(at, at % 10) for at in range(20)],
    "uneven": [(0, 1), (1, 2), (2, 2), (3, 3), (4, 2), (5, 1), (6, 4), (7, 5)],
    "one with 300 lanes": [(0, 1), *((at, 2) for at in range(1, 301)), (301, 3)],
    "1000 contiguous": [(at, at) for at in range(1000)],
    "1000 alternate": [(2 * at, at) for at in range(1000)],
    "1000 lanes of 500 workers": [(at, at % 500) for at in range(1000)],
    "1000 lanes of 7 workers": [(at, at % 7) for at in range(1000)],
    "1000 lanes of 1 worker": [(at, 1) for at in range(1000)],
}


def choices_of(ffi, shape):
    return ffi.new("struct rc_choice[]", [{"index": i, "worker": w} for i, w in shape])


def build(ffi, lib, shape, room=None):
    room = lib.RC_PROGRAM_MAX if room is None else room
    out = ffi.new("struct sock_filter[]", room + 1)
    out[room].code = 0xFFFF  # a canary: what lies behind the room is not ours
    length = lib.rc_steering_build(choices_of(ffi, shape), len(shape), out, room)
    assert out[room].code == 0xFFFF
    return [(one.code, one.jt, one.jf, one.k) for one in out[0 : max(length, 0)]], length


def outcomes(text):
    """{returned index: probability}, by following each residue of each random number."""
    found, paths = {}, [(0, 0, Fraction(1))]
    while paths:
        at, a, part = paths.pop()
        code, jt, jf, k = text[at]
        if code == LD_RANDOM:
            assert k == SKF_AD_RANDOM
            mod, _, _, below = text[at + 1]
            assert mod == MOD and below > 0
            paths += [(at + 2, value, part / below) for value in range(below)]
        elif code == ADD:
            paths.append((at + 1, (a + k) & 0xFFFFFFFF, part))
        elif code in (JGE, JEQ):
            holds = a >= k if code == JGE else a == k
            paths.append((at + 1 + (jt if holds else jf), a, part))
        elif code == JA:
            paths.append((at + 1 + k, a, part))
        else:
            assert code in (RET_A, RET_K), f"unknown instruction {code:#x}"
            index = a if code == RET_A else k
            found[index] = found.get(index, 0) + part
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_each_worker_has_an_equal_part_and_each_lane_an_equal_one_of_it(ffi, lib, name):
    shape = SHAPES[name]
    text, length = build(ffi, lib, shape)
    assert 0 < length <= lib.RC_PROGRAM_MAX
    lanes = {}
    for _, worker in shape:
        lanes[worker] = lanes.get(worker, 0) + 1
    assert outcomes(text) == {
        index: Fraction(1, len(lanes) * lanes[worker]) for index, worker in shape
    }


@pytest.mark.parametrize("first, count", [(0, 1), (0, 2), (0, 1000), (5, 1), (5, 4), (9, 999)])
def test_contiguous_lanes_need_at_most_4_instructions(ffi, lib, first, count):
    _, length = build(ffi, lib, [(first + at, at) for at in range(count)])
    assert length <= 4


def test_no_choice_is_an_error(ffi, lib):
    assert build(ffi, lib, [])[1] == -errno.EINVAL


def test_a_program_longer_than_the_room_is_an_error_and_stays_within_it(ffi, lib):
    for name in ("hole", "uneven", "alternate", "one with 300 lanes"):
        _, length = build(ffi, lib, SHAPES[name])
        assert build(ffi, lib, SHAPES[name], length)[1] == length
        for room in {0, 1, 2, length // 2, length - 1}:
            assert build(ffi, lib, SHAPES[name], room)[1] == -errno.E2BIG
    assert build(ffi, lib, [(2 * at, at) for at in range(1100)])[1] == -errno.E2BIG


# ---- the real kernel -------------------------------------------------------------


@pytest.fixture
def group():
    """Makes a reuseport group of n listeners: ({index: socket}, address)."""
    made = []

    def make(count, host="127.0.0.1"):
        address = (host, 0)
        for _ in range(count):
            sock = stream(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SO_REUSEPORT)
            made.append(sock)
            sock.bind(address)
            sock.listen(1024)
            address = sock.getsockname()[:2]
        return dict(enumerate(made)), address

    yield make
    for sock in made:
        sock.close()


def attach(ffi, lib, sock, shape, detour=None):
    detour = ffi.NULL if detour is None else ffi.new("struct rc_detour *", detour)
    return lib.rc_steering_attach(sock.fileno(), 0, choices_of(ffi, shape), len(shape), detour)


@pytest.mark.parametrize(
    "shape",
    [
        [(3, 1)],
        [(0, 1), (1, 2), (2, 3)],
        [(4, 1), (5, 2)],
        [(0, 1), (2, 2), (3, 3), (5, 4)],
        [(1, 1), (2, 1), (4, 2)],
        [(5, 1), (1, 1), (0, 2), (3, 2)],
    ],
)
def test_the_kernel_gives_connections_to_the_chosen_and_to_nobody_else(ffi, lib, group, shape):
    lanes, address = group(6)
    assert attach(ffi, lib, lanes[0], shape) == 0
    counts = spread(lanes, address, 300)
    assert {index for index, count in counts.items() if count} == {index for index, _ in shape}
    parts = {worker: 0 for _, worker in shape}
    for index, worker in shape:
        parts[worker] += counts[index]
    fair = 300 / len(parts)  # 6 standard deviations is one failure in 500 million
    assert all(abs(part - fair) <= 6 * (fair * (1 - fair / 300)) ** 0.5 for part in parts.values())


def test_attaching_again_replaces_the_program(ffi, lib, group):
    lanes, address = group(4)
    for index in (2, 0, 3, 1):
        assert attach(ffi, lib, lanes[(index + 1) % 4], [(index, 1)]) == 0
        assert spread(lanes, address, 40)[index] == 40


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_a_detour_is_for_one_source_port_and_for_nobody_else(ffi, lib, group, host):
    lanes, address = group(4, host)
    with stream(lanes[0].family) as client:
        client.bind((host, 0))
        port = client.getsockname()[1]
        for index, shape in ((3, [(1, 1)]), (0, [(1, 1), (2, 2)]), (2, [(0, 1), (1, 2), (3, 3)])):
            assert attach(ffi, lib, lanes[0], shape, {"port": port, "index": index}) == 0
            counts = spread(lanes, address, 60)
            assert {at for at, count in counts.items() if count} == {at for at, _ in shape}
        assert client.connect_ex(address) in (0, errno.EINPROGRESS)
        assert arrivals(lanes, {port}) == {port: 2}


def test_the_kernel_takes_the_longest_program_we_build(ffi, lib, group):
    lanes, address = group(3)
    assert attach(ffi, lib, lanes[0], [(2 * at, at) for at in range(1000)]) in (0, -errno.ENOMEM)
    assert attach(ffi, lib, lanes[0], [(2, 1)] * 500) == 0
    assert spread(lanes, address, 30)[2] == 30


def test_attach_reports_what_the_kernel_refuses(ffi, lib):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        assert attach(ffi, lib, sock, [(0, 1)]) < 0
        assert attach(ffi, lib, sock, []) == -errno.EINVAL
    assert lib.rc_steering_attach(-1, 0, choices_of(ffi, [(0, 1)]), 1, ffi.NULL) == -errno.EBADF
