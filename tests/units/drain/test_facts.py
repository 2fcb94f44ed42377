"""Owns: what the kernel knows of a retired worker's connections, and what it owes."""

import contextlib
import errno
import os
import select
import socket

import pytest

from ..factscase import (
    FOUR,
    INT_MAX,
    PLACES,
    REQUEST,
    UNKNOWN,
    receive_until_eof,
    receive_until_quiet,
)
from ..harness import Clock

# ---- what owes ----------------------------------------------------------------


def test_no_connections(server):
    server.begin()
    assert server.look() == (0, 0, INT_MAX, 0, 0)


def test_nothing_received_owes(server, dial):
    dial(server)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)


def test_accepted_unread_owes(server, dial):
    dial(server).send(REQUEST)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)


def test_unanswered_owes_for_as_long_as_it_takes(server, dial):
    dial(server).send(REQUEST)
    server.do("accept(); taken[0].recv(100)")
    server.begin()
    clock = Clock(1.5)  # longer than a tie of timestamps would owe
    with contextlib.suppress(TimeoutError):
        while True:
            facts = server.look()
            assert facts[:2] == (1, 1)
            select.poll().poll(min(100, clock.left_ms()))
    assert 1000 <= facts.quiet_ms < 60000


def test_answered_does_not_owe(server, idle):
    facts = server.until(1, 0)
    assert facts.quiet_ms < 60000
    assert server.count() == (1, 0), "idle from now on"


def test_answered_in_the_same_tick_owes_for_a_second_at_most(server):
    server.do("clients = [socket.create_connection(lane.getsockname()) for _ in range(8)]")
    server.do("for client in clients: client.send(b'q'); accept(); answer(); client.recv(200)")
    server.begin()
    server.until(8, 0)


def test_greeting_is_no_answer(server, dial):
    client = dial(server)
    server.do("accept(); tick(); taken[0].sendall(b'220 hello')")
    server.begin()
    assert server.count() == (1, 1)
    client.shutdown(socket.SHUT_WR)
    assert server.count() == (1, 1)


def test_server_that_answers_by_closing_owes_nothing(server, dial):
    client = dial(server)
    client.send(REQUEST)
    server.do("accept(); taken[0].recv(100); taken[0].shutdown(socket.SHUT_WR)")
    receive_until_eof(client)
    server.begin()
    server.until(1, 0)


def test_next_request_owes(server, idle):
    server.until(1, 0)
    idle.send(REQUEST)
    assert server.count() == (1, 1)
    server.do("taken[0].recv(100)")
    assert server.count() == (1, 1)
    server.do("taken[0].sendall(b'a' * 200)")
    server.until(1, 0)


def test_pipelined_request_owes(server, dial):
    client = dial(server)
    client.send(REQUEST * 2)
    server.do("accept(); answer()")
    server.begin()
    assert server.count() == (1, 1)
    server.do("answer()")
    server.until(1, 0)


def test_unsent_answer_owes(server, dial):
    client = dial(server)
    client.send(REQUEST)
    server.do("accept(); taken[0].recv(100); fill()")
    server.begin()
    clock = Clock(1.5)
    with contextlib.suppress(TimeoutError):
        while True:
            assert server.count() == (1, 1)
            select.poll().poll(min(100, clock.left_ms()))
    receive_until_quiet(client)
    server.until(1, 0)


def test_half_closed_owes_until_answered(server, dial):
    client = dial(server)
    client.send(REQUEST)
    client.shutdown(socket.SHUT_WR)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)
    server.do("taken[0].recv(100); assert taken[0].recv(1) == b''")
    assert server.count() == (1, 1)
    server.do("taken[0].sendall(b'a' * 200)")
    server.until(1, 0)
    server.do("taken.clear()")
    server.until(0, 0)


def test_half_closed_while_idle_owes_nothing(server, idle):
    server.until(1, 0)
    idle.shutdown(socket.SHUT_WR)
    assert server.count() == (1, 0), "an unread end of file is not a request"


def test_half_closed_after_an_unread_request_owes(server, idle):
    server.until(1, 0)
    idle.send(b"q")
    idle.shutdown(socket.SHUT_WR)
    assert server.count() == (1, 1)


def test_server_that_has_said_its_last_owes_delivery_only(server, idle):
    idle.send(REQUEST)
    server.do("taken[0].recv(100); fill(); taken[0].shutdown(socket.SHUT_WR)")
    assert server.count() == (1, 1)
    receive_until_eof(idle)
    server.until(1, 0)
    idle.send(REQUEST)
    assert server.count() == (1, 1), "closed with this unread, it would reset"


# ---- which connections -----------------------------------------------------------


def test_closed_ones_drop_out(server, dial):
    clients = [dial(server) for _ in range(4)]
    server.do("[accept() for _ in range(4)]")
    server.begin()
    assert server.count() == (4, 4)
    server.do("taken.pop()")
    assert server.count() == (3, 3)
    for client in clients:
        client.close()  # a reset: it is closed although the server still holds it
    assert server.look()[:3] == (0, 0, INT_MAX)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_other_workers_of_the_port_are_not_counted(serve, dial, host):
    first = serve(1, host=host)
    old = [dial(first, "127.0.0.1") for _ in range(2)]
    second = serve(2, host=host, port=first.address[1])
    new = [dial(first, "127.0.0.1") for _ in range(3)]
    first.do(f"[accept() for _ in range({len(old)})]")
    second.do(f"[accept() for _ in range({len(new)})]")
    first.begin()
    second.begin()
    assert (first.count(), second.count()) == ((2, 2), (3, 3))


def test_what_waits_makes_it_unknown_until_it_was_taken(server, dial):
    dial(server)
    server.begin()
    assert server.look() == (*UNKNOWN, 0, 1)
    server.do("accept()")
    assert server.look() == (*UNKNOWN, 0, 0), "accept may not be over"
    assert server.count() == (1, 1)
    dial(server)
    assert server.look() == (*UNKNOWN, 0, 1)
    server.do("accept()")
    server.until(2, 2)


def test_without_begin(server, dial):
    dial(server)
    server.do("accept()")
    assert server.count() == (1, 1)


@pytest.mark.parametrize("leave_group", [False, True], ids=["group", "session"])
def test_children_hold_for_the_worker(server, dial, leave_group):
    dial(server)
    server.do(f"accept(); writer = hand_over({leave_group})")
    server.begin()
    assert server.count() == (1, 1)
    server.do("os.close(writer); os.wait()")
    assert server.count() == (0, 0)


def test_member_of_the_group_whose_parent_has_ended(server, dial):
    dial(server)
    server.do("accept(); pid = os.fork(); pid or os.fork() and os._exit(0) or time.sleep(60)")
    server.do("os.waitpid(pid, 0); taken.clear()")
    server.begin()
    assert server.count() == (1, 1)


def test_zombies_are_no_obstacle(server, dial):
    dial(server)
    server.do("accept(); os.fork() or os._exit(0)")
    server.do("os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)")
    server.begin()
    assert server.count() == (1, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_an_error(server, dial):
    dial(server)
    server.do("accept(); import ctypes; ctypes.CDLL(None).prctl(4, 0)")  # PR_SET_DUMPABLE
    server.begin()
    assert server.try_look() == -errno.EACCES


def test_lane_that_the_worker_shut_down(serve, engine, dial):
    server = serve(1)
    dial(server)
    server.do("accept()")
    serve(2, port=server.address[1])
    server.begin()
    server.do("lane.shutdown(socket.SHUT_RDWR)")  # as grpcio's stop() does
    engine.wait_until(lambda _: all(lane[0] == 2 for lane in engine.lanes()))
    assert server.count() == (1, 1)


def test_dead_worker(server, engine, lib, dial):
    dial(server)
    server.do("accept()")
    server.begin()
    lib.rc_find(engine.struct, 1).dead = True
    assert server.look() == (0, 0, INT_MAX, 0, 0)


@pytest.mark.parametrize("family, host, to", [pytest.param(FOUR, *["127.0.0.1"] * 2), *PLACES])
def test_each_family(serve, dial, family, host, to):
    server = serve(family=family, host=host)
    dial(server, to).send(REQUEST)
    server.do("accept()")
    server.begin()
    assert server.count() == (1, 1)
    server.do("answer()")
    server.until(1, 0)
    server.do("taken.clear()")
    assert server.count() == (0, 0)


def test_unknown_worker(engine, ffi, lib):
    facts = ffi.new("struct rc_drain_facts *")
    assert lib.rc_drain_begin(engine.pointer, [7, 8], 2) == 0
    assert lib.rc_drain_begin(engine.pointer, [], 0) == 0
    assert lib.rc_drain_look(engine.pointer, 7, facts) == -errno.ESRCH
