"""Owns: who removes a path, and who is let bind or unlink while another does."""

import errno
import os
import tempfile

import pytest

from ..unixcase import comes_to, same, serve, unix, worker_of

# ---- who removes it ------------------------------------------------------------------------


def test_a_stranger_s_socket_at_the_path_is_left_alone(engine, sockets, path):
    [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    foreign = sockets()
    os.unlink(path)
    foreign.bind(path)
    foreign.listen()
    engine.wait(0)
    engine.steer(1, 2)
    assert comes_to(path, foreign)


def test_a_path_that_is_gone_is_bound_anew_and_the_others_are_deaf(engine, sockets, path):
    first = serve(engine, sockets(), path, 1)
    os.unlink(path)
    second, third = serve(engine, sockets(), path, 2), serve(engine, sockets(), path, 3)
    assert not same(first, second) and same(second, third)
    engine.steer(1, 2, 3)
    assert comes_to(path, third)
    assert {one[0]: one[1] for one in engine.lanes()} == {1: False, 2: True, 3: True}


@pytest.fixture
def unlinked(engine, lib, ffi):
    """What becomes of the unlink(2) of a worker: None if the kernel does it."""

    def ask(number, name, at=-100, pid=0):
        call, answer = ffi.new("struct rc_call *"), ffi.new("struct rc_answer *")
        call.worker, call.pid = lib.rc_find(engine.struct, number), pid or os.getpid()
        answer.__setattr__("pass", True)
        lib.rc_unix_unlink(engine.struct, call, at, os.fsencode(name), answer)
        return None if getattr(answer, "pass") else answer.result

    return ask


def test_a_worker_s_unlink_changes_nothing_while_others_have_the_path(
    engine, sockets, path, folder, unlinked
):
    one, two = (serve(engine, sockets(), path, n) for n in (1, 2))
    del two
    worker_of(engine, 3)
    for number in 1, 3:
        assert unlinked(number, path) == 0
    for other in path + "x", "/tmp/app.socket", "app.socket", "/nowhere/app.socket":
        assert unlinked(1, other) is None
    at = os.open(folder, os.O_PATH)
    assert unlinked(1, "app.socket", at) == 0
    os.close(at)
    assert comes_to(path, one)
    os.rename(path, path + "x")  # a stranger's doing
    assert unlinked(1, path) == -errno.ENOENT


def test_a_worker_may_remove_what_it_alone_has(engine, sockets, path, unlinked):
    serve(engine, sockets(), path, 1)
    worker_of(engine, 2)
    assert unlinked(2, path) == 0
    assert unlinked(1, path) is None
    os.unlink(path)
    worker, anew = engine.lib.rc_find(engine.struct, 1), sockets()
    assert not engine.bind_unix(worker, anew, path) and engine.listen(worker, anew)
    assert comes_to(path, anew)


def test_at_the_end_the_first_who_wants_to_removes_the_path(engine, sockets, path, unlinked, lib):
    [serve(engine, sockets(), path, n) for n in (1, 2, 3)]
    assert unlinked(1, path) == 0
    assert lib.rc_close_lanes(engine.pointer, 0) == 0
    assert unlinked(1, path) is None
    os.unlink(path)
    assert unlinked(2, path) == unlinked(3, path) == 0


# ---- turns -------------------------------------------------------------------------------


@pytest.fixture
def later(engine, monkeypatch):
    """What happens while a call waits for its answer, once it does."""
    told, answer = [], engine._later

    def wait():
        engine.wait(0)
        assert not engine.lib.fault_answer(engine.ffi.new("int *")), "it did not wait"
        for one in told:
            one()
        told.clear()
        return answer()

    monkeypatch.setattr(engine, "_later", wait)
    return told.append


def test_a_bind_waits_for_another_s_that_is_under_way(engine, sockets, path, later, ffi, lib):
    first, second, done = sockets(), sockets(), []
    one, two = worker_of(engine, 1), worker_of(engine, 2)
    monkey = engine.ffi.new("struct rc_answer *")
    address = b"\x01\x00" + os.fsencode(path) + b"\0"
    call = ffi.new("struct rc_call *")
    call.worker, call.pid, call.fd = one, os.getpid(), first.fileno()
    call.path_length = len(address)
    ffi.memmove(ffi.addressof(call, "path"), address, len(address))
    lib.rc_lanes_bind(engine.struct, call, monkey)
    assert getattr(monkey, "pass")  # and the kernel takes its time
    later(lambda: done.append(first.bind(path)))
    assert engine.bind_unix(two, second, path) and done
    assert engine.listen(two, second) and engine.listen(one, first)
    assert same(first, second) and comes_to(path, second)


def test_a_bind_that_came_to_nothing_is_not_waited_for_for_ever(
    engine, sockets, path, folder, ffi, lib
):
    """Its worker was stopped, or does something else."""
    one, two, second = worker_of(engine, 1), worker_of(engine, 2), sockets()
    call, answer = ffi.new("struct rc_call *"), ffi.new("struct rc_answer *")
    address = b"\x01\x00" + os.fsencode(path) + b"\0"
    with unix() as first:
        call.worker, call.pid, call.fd = one, os.getpid(), first.fileno()
        call.path_length = len(address)
        ffi.memmove(ffi.addressof(call, "path"), address, len(address))
        lib.rc_lanes_bind(engine.struct, call, answer)
    assert getattr(answer, "pass")
    assert not engine.bind_unix(two, second, path)  # the kernel's to do, after a second
    assert engine.listen(two, second) and comes_to(path, second)


def test_a_private_directory_is_the_worker_s_own_business(engine, sockets, folder):
    worker = worker_of(engine, 1)
    while True:  # its time has the clock's tick
        inner = tempfile.mkdtemp(dir=folder)
        sock = sockets()
        assert not engine.bind_unix(worker, sock, os.path.join(inner, "listener"))
        if not engine.listen(worker, sock):
            break


def test_nine_bytes_of_path_are_the_worker_s_own(engine, sockets):
    """The length of a netlink address, which the filter lets by."""
    path = f"/tmp/rc{os.getpid() % 100}"
    path = path + "x" * (9 - len(path))
    worker, sock = worker_of(engine, 1), sockets()
    sock.bind(path)
    try:
        assert not engine.listen(worker, sock)
        assert engine.lanes() == []
    finally:
        os.unlink(path)


def test_who_takes_turn_after_turn_does_not_keep_the_others_away(
    engine, sockets, path, unlinked, monkeypatch
):
    worker_of(engine, 1)
    two, sock, wait, waits = worker_of(engine, 2), sockets(), engine.wait, []

    def again(*timeout):
        assert unlinked(1, path) is None
        waits.append(timeout)
        return wait(*timeout)

    monkeypatch.setattr(engine, "wait", again)
    assert unlinked(1, path) is None
    assert not engine.bind_unix(two, sock, path) and len(waits) > 1
    assert engine.listen(two, sock)
