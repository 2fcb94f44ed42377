"""Owns: what a bind and a listen of an AF_UNIX stream socket become, and its path."""

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys

import pytest

from ..unixcase import comes_to, connect, kill, refused, same, serve, unix, worker_of

# ---- one lane for all ------------------------------------------------------------------


def test_all_workers_share_one_listener(engine, sockets, path):
    socks = [serve(engine, sockets(), path, n) for n in (1, 2, 3)]
    engine.wait(0)
    engine.steer(1, 2, 3)
    assert all(same(sock, socks[0]) for sock in socks)
    assert all(comes_to(path, sock) for sock in socks)
    assert {sock.getsockname() for sock in socks} == {path}
    assert all(not sock.getblocking() and not sock.get_inheritable() for sock in socks)
    assert [one[4] for one in engine.lanes()] == [f"unix:{path}"] * 3


def test_bound_before_any_listens(engine, sockets, path):
    workers, socks = [worker_of(engine, n) for n in (1, 2, 3)], [sockets() for _ in range(3)]
    told = [
        engine.bind_unix(worker, sock, path) for worker, sock in zip(workers, socks, strict=True)
    ]
    assert told == [False, True, True]  # the first one's is the kernel's to do
    for at in (1, 0, 2):
        assert engine.listen(workers[at], socks[at])
    engine.steer(1, 2, 3)
    assert all(same(sock, socks[0]) for sock in socks)
    assert comes_to(path, socks[1]) and socks[1].getsockname() == path


def test_another_text_of_the_same_path(engine, sockets, path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    one, two = serve(engine, sockets(), "app.socket", 1), serve(engine, sockets(), path, 2)
    three = serve(engine, sockets(), "./app.socket", 3, generation=2)
    assert same(one, two) and same(one, three)


def test_by_links_whose_time_of_access_is_due(engine, sockets, path, folder):
    """As of `current -> releases/42`, made a moment ago: the kernel does not follow them by what
    it has in memory alone, and the bind was answered with "Address already in use"."""
    one = serve(engine, sockets(), path, 1)
    os.mkdir(os.path.join(folder, "links"))
    os.symlink("..", os.path.join(folder, "links", "up"))
    os.symlink("links/up", os.path.join(folder, "link"))
    os.symlink(os.path.join(folder, "link"), os.path.join(folder, "current"))
    for name in "links/up", "link", "current":
        os.utime(os.path.join(folder, name), (0, 0), follow_symlinks=False)
    two = serve(engine, sockets(), os.path.join(folder, "current", "app.socket"), 2)
    assert same(one, two)


def test_the_same_text_in_another_directory_is_another_path(engine, sockets, folder, monkeypatch):
    for name in "one", "two":
        os.mkdir(os.path.join(folder, name))
    monkeypatch.chdir(os.path.join(folder, "one"))
    one = serve(engine, sockets(), "app.socket", 1)
    monkeypatch.chdir(os.path.join(folder, "two"))
    assert not same(one, serve(engine, sockets(), "app.socket", 2, generation=2))


def test_a_link_that_leads_elsewhere_now(engine, sockets, folder):
    """`current -> releases/42`: the new code's path is the new release's."""
    link = os.path.join(folder, "current")
    for name in "one", "two":
        os.mkdir(os.path.join(folder, name))
    os.symlink("one", link)
    old = serve(engine, sockets(), os.path.join(link, "app.socket"), 1)
    os.unlink(link)
    os.symlink("two", link)
    new = serve(engine, sockets(), os.path.join(link, "app.socket"), 2, generation=2)
    assert not same(old, new) and comes_to(os.path.join(folder, "two", "app.socket"), new)
    assert comes_to(os.path.join(folder, "one", "app.socket"), old)


@pytest.mark.parametrize("listening", [False, True])
def test_an_address_of_somebody_else_is_in_use(engine, sockets, path, listening):
    foreign = sockets()
    foreign.bind(path)
    if listening:
        foreign.listen()
    worker = worker_of(engine, 1)
    assert refused(engine.bind_unix, worker, sockets(), path) == errno.EADDRINUSE
    engine.wait(0)
    assert os.listdir(os.path.dirname(path)) == ["app.socket"]


def test_a_second_engine_is_in_use(new_engine, sockets, path):
    first, second = new_engine(), new_engine()
    sock = serve(first, sockets(), path, 1)
    worker = worker_of(second, 1)
    assert refused(second.bind_unix, worker, sockets(), path) == errno.EADDRINUSE
    assert comes_to(path, sock)


def test_the_backlog_only_grows(engine, sockets, path):
    worker, sock = worker_of(engine, 1), sockets()
    engine.bind_unix(worker, sock, path)
    assert engine.listen(worker, sock, 5) and engine.listen(worker, sock, 1)
    somaxconn = int(open("/proc/sys/net/core/somaxconn").read())  # noqa: SIM115
    assert engine.lanes()[0][3] == min(1024, somaxconn)


# ---- reload --------------------------------------------------------------------------


def test_all_generations_have_one_queue(engine, sockets, path, lib):
    old = [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    inode = os.stat(path).st_ino
    with connect(path):
        new = [serve(engine, sockets(), path, n, generation=2) for n in (3, 4)]
        assert all(same(old[0], sock) for sock in new) and os.stat(path).st_ino == inode
        engine.steer(3, 4)
        assert [lib.rc_queued(engine.pointer, n) for n in (1, 2, 3, 4)] == [0, 0, 1, 1]
        engine.bury(1)
        engine.bury(2)
        new[1].accept()[0].close()
    assert comes_to(path, new[0])


def test_the_queue_of_a_dead_worker_is_its_successor_s(engine, sockets, path, lib):
    first = serve(engine, sockets(), path, 1)
    engine.steer(1)
    with connect(path):
        first.close()
        kill(engine, 1)
        assert lib.rc_queued(engine.pointer, 1) == 1
        heir = serve(engine, sockets(), path, 2, generation=7, heir_of=1)
        engine.steer(2)
        engine.bury(1)
        heir.accept()[0].close()
        assert comes_to(path, heir)


def test_a_sibling_serves_the_queue_of_a_dead_worker(engine, sockets, path, lib):
    serve(engine, sockets(), path, 1)
    second = serve(engine, sockets(), path, 2)
    engine.steer(1, 2)
    with connect(path):
        kill(engine, 1)
        assert lib.rc_queued(engine.pointer, 1) == 0
        engine.bury(1)
        second.accept()[0].close()


# ---- the end -------------------------------------------------------------------------------


def test_what_waits_at_the_end_is_still_served(engine, sockets, path, lib):
    socks = [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    with connect(path):
        assert lib.rc_close_lanes(engine.pointer, 0) == 0
        engine.steer()
        assert [lib.rc_queued(engine.pointer, n) for n in (1, 2)] == [1, 1]
        socks[0].accept()[0].close()
    assert lib.rc_queued(engine.pointer, 1) == 0


def test_a_freed_engine_leaves_nothing(new_engine, sockets, path, fds):
    before = fds()
    engine, socks = new_engine(), [unix() for _ in range(3)]
    serve(engine, socks[0], path, 1)
    serve(engine, socks[1], path, 2, generation=2)
    engine.bind_unix(worker_of(engine, 3, 3), socks[2], path)
    engine.free()
    for sock in socks:
        sock.close()
    assert fds() == before
    os.unlink(path)


# ---- abstract ---------------------------------------------------------------------------------


def test_an_abstract_name_is_one_socket_for_all(engine, sockets):
    name = f"\0recluster-test-{os.getpid()}"
    workers, socks = [worker_of(engine, n, n) for n in (1, 2, 3)], [sockets() for _ in range(3)]
    told = [
        engine.bind_unix(worker, sock, name)
        for worker, sock in zip(workers[:2], socks, strict=False)
    ]
    assert told == [False, True]
    for worker, sock in zip(workers[:2], socks, strict=False):
        assert engine.listen(worker, sock)
    assert engine.bind_unix(workers[2], socks[2], name)
    assert engine.listen(workers[2], socks[2])
    assert all(same(sock, socks[0]) for sock in socks) and comes_to(name, socks[2])
    for number in (1, 2, 3):
        engine.bury(number)
    for sock in socks:
        sock.close()
    assert refused(connect, name) == errno.ECONNREFUSED


def test_names_are_bytes(engine, sockets, folder):
    for name in b"\0ab\xff\0\n", os.fsencode(folder) + b"/x\xff\n.sock":
        one, two = worker_of(engine, 1), worker_of(engine, 2)
        first, second = sockets(), sockets()
        assert not engine.bind_unix(one, first, name) and engine.bind_unix(two, second, name)
        assert engine.listen(one, first) and engine.listen(two, second)
        assert same(first, second) and comes_to(name, second)
        engine.bury(1)
        engine.bury(2)


@pytest.mark.skipif(os.geteuid() != 0, reason="wants a network namespace of its own")
def test_an_abstract_name_in_another_network_is_another(engine, sockets):
    name, first = (
        f"\0recluster-test-{os.getpid()}",
        serve(engine, sockets(), f"\0recluster-test-{os.getpid()}", 1),
    )
    receive, send = socket.socketpair()
    with receive, send:
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                if ctypes.CDLL(None).unshare(0x40000000) == 0:  # CLONE_NEWNET
                    socket.send_fds(send, [b"!"], [unix().detach()])
                    status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        _, [fd], _, _ = socket.recv_fds(receive, 1, 1)
        second = socket.socket(fileno=fd)
    with second:
        assert not engine.bind_unix(worker_of(engine, 2), second, name)
        assert engine.listen(engine.lib.rc_find(engine.struct, 2), second)
        assert not same(first, second) and comes_to(name, first)


# ---- connections -----------------------------------------------------------------------------


def test_the_connections_a_worker_holds_are_counted(engine, path, lib):
    worker = worker_of(engine, 1)
    code = (
        "import socket, sys; s = socket.socket(fileno=0); "
        "held = [s.accept()[0] for _ in range(3)]; print(flush=True); sys.stdin.read()"
    )
    with unix() as sock:
        engine.bind_unix(worker, sock, path)
        engine.listen(worker, sock)
        sock.setblocking(True)
        clients = [connect(path) for _ in range(3)]
        child = subprocess.Popen(
            [sys.executable, "-c", code.replace("fileno=0", f"fileno={sock.fileno()}")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[sock.fileno()],
            start_new_session=True,
        )
        child.stdout.readline()
        worker.pid = child.pid
        assert lib.rc_unix_connections(engine.struct, worker) == 3
        child.communicate()
        assert lib.rc_unix_connections(engine.struct, worker) == 0
        worker.pid = 0
        for client in clients:
            client.close()


# ---- faults ------------------------------------------------------------------------------------

CALLS = ("fcntl", "calloc", "realloc", "listen", "epoll_ctl", "malloc")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("first", [True, False])
def test_whatever_fails_is_told_or_made_up_for(new_engine, sockets, path, fault, fds, name, first):
    for n in range(1, 12):
        engine = new_engine()
        if not first:
            serve(engine, sockets(), path, 1)
            engine.steer(1)
        worker, sock = worker_of(engine, 2, 2), sockets()
        before = fds()
        fault.arm(n, errno.ENOMEM, name)
        try:
            engine.bind_unix(worker, sock, path)
            engine.listen(worker, sock)
        except OSError as error:
            assert error.errno == errno.ENOMEM, error
            if not sock.getsockname():  # not even bound
                assert fds() == before
        hit = fault.disarm()
        engine.steer(2 if first else 1)
        engine.free()
        assert os.listdir(os.path.dirname(path)) == ["app.socket"]
        os.unlink(path)
        if not hit:
            return
    raise AssertionError(f"{name} never ended to fail")
