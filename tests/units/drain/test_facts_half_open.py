"""Owns: the handshakes that were under way when a worker retired."""

import pytest

from ..factscase import (
    FOUR,
    INT_MAX,
    PLACES,
    REQUEST,
    UNKNOWN,
    defer,
)


@pytest.mark.parametrize("family, host, to", [pytest.param(FOUR, *["127.0.0.1"] * 2), *PLACES])
def test_half_open_of_before(serve, dial, family, host, to):
    server = serve(family=family, host=host)
    defer(server)
    early = [dial(server, to) for _ in range(2)]
    server.begin()
    dial(server, to)  # later: not its own
    assert server.look() == (0, 0, INT_MAX, 2, 0)
    early[0].send(REQUEST)
    assert server.look() == (*UNKNOWN, 1, 1)
    server.do("accept()")
    assert server.look() == (*UNKNOWN, 1, 0)
    assert server.look()[:4:3] == (1, 1)
    early[1].close()  # a reset
    assert server.look() == (*UNKNOWN, 0, 0), "it might have been accepted"
    assert server.count() == (1, 1)


def test_half_open_taken_between_two_looks(server, dial):
    defer(server)
    client = dial(server)
    server.begin()
    assert server.count() == (0, 0)
    client.send(REQUEST)
    server.do("accept()")
    assert server.look() == (*UNKNOWN, 0, 0)
    assert server.count() == (1, 1)


def test_half_open_is_shared_by_those_that_retire_together(serve, engine, lib, dial):
    first = serve(1)
    defer(first)
    client = dial(first)
    second = serve(2, port=first.address[1])
    assert lib.rc_drain_begin(engine.pointer, [1, 2, 1], 3) == 0
    assert (first.look().half_open, second.look().half_open) == (1, 1)
    engine.bury(1)
    assert second.look().half_open == 1
    client.close()
    assert second.look() == (*UNKNOWN, 0, 0)
    assert second.look() == (0, 0, INT_MAX, 0, 0)


def test_half_open_at_another_address_is_not_taken(serve, dial):
    first = serve(1)
    second = serve(2, host="127.0.0.2", port=first.address[1])
    defer(second)
    dial(second)
    first.begin()
    assert first.look().half_open == 0
    second.begin()
    assert second.look().half_open == 1


def test_flood_of_half_open(server, dial):
    defer(server)
    clients = [dial(server) for _ in range(200)]
    server.begin()
    facts = server.look()
    assert facts[:3] == UNKNOWN and facts.half_open == 200
    for client in clients:
        client.close()
    left = [server.look().half_open for _ in range(5)]
    assert left[0] > 0 and left[-1] == 0
    assert server.count() == (0, 0)
