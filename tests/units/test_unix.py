"""Owns: what a bind and a listen of an AF_UNIX stream socket become, and its path."""

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys
import tempfile

import pytest

from .harness import ready


def unix():
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    return sock


@pytest.fixture
def sockets():
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(unix())


@pytest.fixture
def folder():
    """Older than any worker: what was made later, for its user alone, is private."""
    with tempfile.TemporaryDirectory(prefix="recluster-") as folder:
        yield folder


@pytest.fixture
def path(folder):
    return os.path.join(folder, "app.socket")


def worker_of(engine, number, generation=1, heir_of=0):
    worker = engine.worker(number, heir_of)
    engine.place(number, generation=generation)
    return worker


def serve(engine, sock, path, number, generation=1, heir_of=0):
    """A worker that listens there."""
    worker = worker_of(engine, number, generation, heir_of)
    engine.bind_unix(worker, sock, path)
    assert engine.listen(worker, sock)
    return sock


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def comes_to(path, sock):
    """Whether a new connection waits in that socket's queue."""
    with connect(path):
        if not ready(sock, ms=0):
            return False
        sock.accept()[0].close()
        return True


def refused(function, *arguments):
    with pytest.raises(OSError) as caught:
        function(*arguments)
    return caught.value.errno


def kill(engine, number):
    worker = engine.lib.rc_find(engine.struct, number)
    worker.dead = True
    engine.lib.rc_lanes_resteer(engine.struct)


def same(one, two):
    return os.fstat(one.fileno()).st_ino == os.fstat(two.fileno()).st_ino


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
    os.symlink(folder, os.path.join(folder, "link"))
    four = serve(engine, sockets(), os.path.join(folder, "link", "app.socket"), 4)
    assert same(one, two) and same(one, three) and same(one, four)


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
