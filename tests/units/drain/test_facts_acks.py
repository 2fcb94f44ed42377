"""An answer that was sent and is not acknowledged yet is an answer: a client may delay that for
40 ms, and one that asks more often than that never shows anything else."""

import socket

from ..factscase import ANSWER, REQUEST, receive

TIMES = 20


def test_a_delayed_acknowledgement_owes_nothing(server, dial):
    client = dial(server)
    server.do("accept()")
    server.begin()
    server.until(1, 1)  # it was not asked yet
    for _ in range(TIMES):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        client.send(REQUEST)
        server.do("tick(); answer()")
        assert server.count() == (1, 0)
        assert receive(client, len(ANSWER)) == ANSWER


def test_a_long_answer_that_is_under_way_owes(server, dial):
    client = dial(server)
    client.send(REQUEST)
    server.do("accept(); taken[-1].recv(100); fill()")
    server.begin()
    assert server.until(1, 1)
