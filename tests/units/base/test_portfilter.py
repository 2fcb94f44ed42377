"""Owns: the filter by port says what it should, by the kernel's rules for its text.

That the kernel takes it is seen in test_facts.py; here it is run as inet_diag_bc_run does, and
checked as inet_diag_bc_audit does.
"""

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

JUMP, GREATER, EQUAL = 1, 2, 11  # of enum inet_diag_bc: JMP, S_GE, S_EQ
PORTS = st.integers(1, 65535)


def built(lib, ffi, ports):
    """The text, as (code, yes, no) by its offset in bytes, and its length."""
    out = ffi.new("struct inet_diag_bc_op **")
    length = lib.rc_portfilter([socket.htons(port) for port in ports], len(ports), out)
    assert length > 0 and length % 4 == 0
    text = {at * 4: (out[0][at].code, out[0][at].yes, out[0][at].no) for at in range(length // 4)}
    lib.free(out[0])
    return text, length


def wanted(text, length, port):
    at = 0
    while at < length:
        code, yes, no = text[at]
        assert code in (JUMP, GREATER, EQUAL)
        value = text[at + 4][2] if code != JUMP else None
        is_so = {JUMP: False, GREATER: value is not None and port >= value, EQUAL: port == value}
        at += yes if is_so[code] else no
    return at == length


def audit(text, length):
    starts, at = set(), 0
    while at < length:  # the chain of yes
        starts.add(at)
        at += text[at][1]
    assert at == length
    for at in starts:
        code, yes, no = text[at]
        least = 4 if code == JUMP else 8
        left = length - at
        assert least <= yes <= left + 4 and yes % 4 == 0
        assert least <= no <= left + 4 and no % 4 == 0
        assert no >= left or at + no in starts


@given(ports=st.lists(PORTS, min_size=1, max_size=60), others=st.lists(PORTS, max_size=60))
def test_it_wants_those_ports_and_no_other(lib, ffi, ports, others):
    text, length = built(lib, ffi, ports)
    audit(text, length)
    for port in {*ports, *others, *(port + 1 for port in ports), *(port - 1 for port in ports)}:
        assert wanted(text, length, port) == (port in ports)


def test_as_many_as_there_may_be(lib, ffi):
    most = lib.RC_PORTS_MAX
    ports = list(range(1, 60 * most, 60))[:most]
    text, length = built(lib, ffi, ports)
    audit(text, length)
    assert all(wanted(text, length, port) for port in ports)
    assert not any(wanted(text, length, port + 1) for port in ports)


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_too_many_are_refused(lib, ffi, count):
    out = ffi.new("struct inet_diag_bc_op **")
    count = count and lib.RC_PORTS_MAX + 1
    assert lib.rc_portfilter([1] * (count or 1), count, out) == -errno.EINVAL
