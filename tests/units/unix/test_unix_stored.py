"""Owns: an AF_UNIX listener that outlives its engine, and who gets it from the next one."""

import errno
import os

import pytest

from ..unixcase import connect, kill, refused, same, serve, worker_of


def stored(engine, ffi):
    """[(a descriptor of our own, what was noted with it)], as a service manager has them."""
    out, note = ffi.new("struct rc_stored[]", 9), ffi.new("char[]", engine.lib.RC_NOTE_MAX)
    kept = []
    for at in range(engine.lib.rc_stored_lanes(engine.pointer, out, 9)):
        assert engine.lib.rc_stored_note(engine.pointer, out[at].inode, note, len(note)) == 0
        kept.append((os.dup(out[at].fd), ffi.string(note)))
    return kept


def restore(engine, ffi, fd, note):
    """Its address, or -errno."""
    text = ffi.new("char[]", 128)
    return engine.lib.rc_restore(engine.pointer, fd, note, text, 128) or ffi.string(text).decode()


@pytest.fixture
def kept(new_engine, ffi, sockets, path):
    """Of a path, with a client in the queue, and an engine that has ended."""
    engine = new_engine()
    sock = serve(engine, sockets(), path, 1)
    engine.steer(1)
    ((fd, note),) = stored(engine, ffi)
    engine.lib.rc_engine_abandon(engine.pointer)
    engine.pointer = ffi.NULL  # its descriptors' numbers are others' from here on
    sock.close()
    with connect(path):
        yield fd, note


def test_who_asks_gets_it_with_its_queue_and_has_it_alone(engine, ffi, kept, sockets, path, lib):
    assert restore(engine, ffi, *kept) == f"unix:{path}"
    assert lib.rc_restored(engine.pointer) == 0
    assert engine.lanes() == []  # nobody's
    one = serve(engine, sockets(), path, 1)
    assert one.getsockname() == path
    one.accept()[0].close()
    two = serve(engine, sockets(), path, 2)
    assert same(one, two)
    assert {lane[0] for lane in engine.lanes()} == {1, 2}
    for number in (1, 2):
        kill(engine, number)
        engine.bury(number)
    one.close()
    two.close()
    assert refused(connect, path) == errno.ECONNREFUSED  # no trace of nobody is left


def test_who_asks_and_dies_does_not_take_it_along(engine, ffi, kept, sockets, path):
    restore(engine, ffi, *kept)
    engine.bind_unix(worker_of(engine, 1), sockets(), path)
    kill(engine, 1)
    engine.bury(1)
    serve(engine, sockets(), path, 2).accept()[0].close()


def test_a_descriptor_that_cannot_be_put_in_place_does_not_cost_the_queue(
    engine, ffi, kept, sockets, path, lib, monkeypatch
):
    restore(engine, ffi, *kept)
    worker, sock = worker_of(engine, 1), sockets()
    engine.bind_unix(worker, sock, path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup2", lambda *_, **__: None)  # the worker had none left
        lib.rc_lanes_refused(engine._ask(lib.rc_lanes_listen, worker, sock, backlog=9))
    kill(engine, 1)
    serve(engine, sockets(), path, 2).accept()[0].close()


def test_it_is_kept_again_with_the_same_note(engine, ffi, kept, sockets, path):
    _, note = kept
    restore(engine, ffi, *kept)
    for number in (1, 2):  # before and after a worker has it
        ((fd, again),) = stored(engine, ffi)
        os.close(fd)
        assert again == note
        serve(engine, sockets(), path, number)


@pytest.mark.parametrize("other", [b"1-%s-%s", b"%s-%s", b"of another version"])
def test_another_s_note(engine, ffi, kept, sockets, path, other):
    """With other rights it is nobody's; without a note it is not taken at all."""
    fd, note = kept
    node = tuple(note.split(b"-")[1:])
    result = restore(engine, ffi, fd, other % node if b"%" in other else other)
    if result == -errno.EINVAL:
        os.close(fd)  # it was left to us
    else:
        assert refused(serve, engine, sockets(), path, 1) == errno.EADDRINUSE


def test_another_node_is_not_its_path(engine, ffi, kept, sockets, path):
    """As if somebody had made the path anew meanwhile."""
    fd, note = kept
    rights, device, node = note.split(b"-")
    if node == b"0":
        pytest.skip("nobody knows it here")
    restore(engine, ffi, fd, b"-".join((rights, device, b"%x" % (int(node, 16) + 1))))
    assert refused(serve, engine, sockets(), path, 1) == errno.EADDRINUSE
    assert refused(connect, path) == errno.ECONNREFUSED  # and it is given up


@pytest.mark.parametrize("name", ["fcntl", "calloc", "realloc", "getsockname", "malloc"])
def test_whatever_fails_the_descriptor_is_left_to_the_caller(
    new_engine, ffi, kept, sockets, path, fault, fds, name
):
    fd, note = kept
    for n in range(1, 12):
        engine = new_engine()
        before = fds()
        fault.arm(n, errno.ENOMEM, name)
        result = restore(engine, ffi, fd, note)
        if not fault.disarm():
            serve(engine, sockets(), path, 1).accept()[0].close()
            return
        assert result == -errno.ENOMEM
        assert fds() == before
    raise AssertionError(f"{name} never ended to fail")
