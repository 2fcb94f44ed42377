"""Owns: connections that are out of a dead worker's queue, and that nobody has taken yet
(csrc/handover/handout.c)."""

import socket

import pytest

from ..harness import check, connect


@pytest.fixture
def given_back(engine, lib):
    """A connection that was given to one that has not taken it; two lanes, of 1 and 2."""
    check(lib.rc_ring_open(engine.pointer), "rc_ring_open")
    lane = engine.lane(1, ("127.0.0.1", 0))
    lanes = [lane, engine.lane(2, lane.getsockname())]
    engine.steer(1, 2)
    with socket.create_server(("127.0.0.1", 0)) as other, connect(other.getsockname()) as client:
        server, _ = other.accept()
        accepted = engine.ffi.new("struct rc_accepted *", {"fd": server.detach()})
        group = engine.struct.groups
        lib.rc_accepted_keep(group, accepted)

        def is_kept():
            lib.rc_handout_run(engine.struct, group)
            return bool(group.undelivered)

        yield is_kept, client
    for one in lanes:
        one.close()


def of(engine, number):
    return engine.lib.rc_find(engine.struct, number)


def test_while_nobody_is_there_it_waits_for_who_comes(engine, given_back):
    is_kept, _ = given_back
    for number in (1, 2):
        of(engine, number).dead = True
    assert is_kept()


def test_who_can_be_given_it_may_be_late(engine, given_back):
    is_kept, _ = given_back
    of(engine, 1).dead, of(engine, 2).receives = True, True
    assert is_kept()


def test_where_those_who_serve_never_can_the_client_is_told(engine, given_back):
    is_kept, client = given_back
    of(engine, 1).dead = True  # and 2 has not the library
    assert not is_kept()
    assert client.recv(1) == b""
