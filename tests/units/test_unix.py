"""Owns: what a bind and a listen of an AF_UNIX stream socket become, and its path."""

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile

import pytest

from .harness import ready

OPENAT2 = 437  # the same number everywhere


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


def serve(engine, sock, path, number, generation=1, heir_of=0, unlink=False):
    """A worker that listens there."""
    worker = worker_of(engine, number, generation, heir_of)
    if unlink:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    assert engine.bind_unix(worker, sock, path)
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


def may_have_a_root():
    """Whether a bind aside can have the name that was asked for."""
    code = "import ctypes, os; c = ctypes.CDLL(None); os.chdir('/tmp')\n"
    code += "raise SystemExit(c.chroot(b'.') and (c.unshare(0x10000000) or c.chroot(b'.')) and 1)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def has_name(sock, path):
    """Of a socket that was bound aside: the path, or else another name of it."""
    name = sock.getsockname()
    if may_have_a_root():
        return name == path
    folder, base = os.path.split(path)
    return name.startswith(os.path.join(folder, f".{base}.recluster-"))


# ---- one lane for a generation ---------------------------------------------------------


@pytest.mark.parametrize("unlink", [False, True])
def test_the_workers_of_a_generation_share_one_listener(engine, sockets, path, unlink):
    socks = [serve(engine, sockets(), path, n, unlink=unlink) for n in (1, 2, 3)]
    engine.wait(0)
    engine.steer(1, 2, 3)
    assert all(same(sock, socks[0]) for sock in socks)
    assert all(comes_to(path, sock) for sock in socks)
    assert {sock.getsockname() for sock in socks} == {path}
    assert all(not sock.getblocking() and not sock.get_inheritable() for sock in socks)
    assert [one[4] for one in engine.lanes()] == [f"unix:{path}"] * 3


def test_bound_before_any_listens(engine, sockets, path):
    workers, socks = [worker_of(engine, n) for n in (1, 2, 3)], [sockets() for _ in range(3)]
    for worker, sock in zip(workers, socks, strict=True):
        assert engine.bind_unix(worker, sock, path)
        assert sock.getsockname() == path or has_name(sock, path)
    for at in (1, 0, 2):
        assert engine.listen(workers[at], socks[at])
    engine.steer(1, 2, 3)
    assert all(same(sock, socks[1]) for sock in socks)
    assert comes_to(path, socks[0])


def test_a_relative_path_is_the_worker_s(engine, sockets, path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    one, two = serve(engine, sockets(), "app.socket", 1), serve(engine, sockets(), path, 2)
    three = serve(engine, sockets(), "./app.socket", 3, generation=2)
    assert same(one, two) and three.getsockname() == "./app.socket"
    engine.steer(3)
    assert comes_to(path, three)


@pytest.mark.parametrize("listening", [False, True])
def test_an_address_of_somebody_else_is_in_use(engine, sockets, path, listening):
    foreign = sockets()
    foreign.bind(path)
    if listening:
        foreign.listen()
    worker = worker_of(engine, 1)
    assert refused(engine.bind_unix, worker, sockets(), path) == errno.EADDRINUSE
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


def test_owner_and_umask_are_the_worker_s(engine, sockets, path):
    before = os.umask(0o027)
    try:
        serve(engine, sockets(), path, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o750


# ---- reload --------------------------------------------------------------------------


def test_a_new_generation_takes_over_in_one_step(engine, sockets, path):
    old = [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    os.chmod(path, 0o642)
    new = [serve(engine, sockets(), path, n, generation=2) for n in (3, 4)]
    assert not same(old[0], new[0]) and same(*new)
    assert has_name(new[0], path)
    assert comes_to(path, old[0])
    engine.steer(3, 4)
    assert comes_to(path, new[1]) and stat.S_IMODE(os.stat(path).st_mode) == 0o642
    with connect(path) as client:
        assert client.getpeername() == new[0].getsockname()
        new[0].accept()[0].close()
    engine.steer(1, 2)  # a roll back
    assert comes_to(path, old[0])
    engine.steer(3, 4)
    engine.bury(1)
    engine.bury(2)
    assert comes_to(path, new[0])


def test_while_two_generations_are_live_the_larger_has_the_address(engine, sockets, path):
    old = [serve(engine, sockets(), path, n) for n in (1, 2, 3)]
    new = [serve(engine, sockets(), path, n, generation=2) for n in (4, 5, 6)]
    engine.steer(4, 2, 3)
    assert comes_to(path, old[0])
    engine.steer(4, 5, 3)
    assert comes_to(path, new[0])


def test_what_waits_is_the_old_generation_s(engine, sockets, path, lib):
    old = serve(engine, sockets(), path, 1)
    engine.steer(1)
    with connect(path):
        new = serve(engine, sockets(), path, 2, generation=2)
        engine.steer(2)
        assert lib.rc_queued(engine.pointer, 1) == 1
        assert lib.rc_queued(engine.pointer, 2) == 0
        assert not ready(new, ms=0)
        old.accept()[0].close()
        assert lib.rc_queued(engine.pointer, 1) == 0


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


# ---- the path does not go missing ---------------------------------------------------------


def test_a_removed_path_is_put_back(engine, sockets, path):
    socks = [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    for remove in (os.unlink, lambda name: os.rename(name, name + ".moved")):
        remove(path)
        engine.wait_until(lambda events: os.path.exists(path))
        assert comes_to(path, socks[0])
    os.unlink(path + ".moved")


def test_a_stranger_s_socket_at_the_path_is_left_alone(engine, sockets, path):
    [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    foreign = sockets()
    os.unlink(path)
    foreign.bind(path)
    foreign.listen()
    engine.wait()
    engine.steer(1, 2)
    assert comes_to(path, foreign)


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
    assert unlinked(1, os.path.join(folder, ".app.socket.recluster-1")) == 0
    assert unlinked(1, path + "x") == unlinked(1, "/tmp/app.socket") == -errno.ENOENT
    assert unlinked(1, "app.socket") == -errno.ENOENT
    assert unlinked(1, "/nowhere/app.socket") is None
    at = os.open(folder, os.O_PATH)
    assert unlinked(1, "app.socket", at) == 0
    os.close(at)
    assert comes_to(path, one)
    os.rename(path, path + "x")  # a stranger's doing; it is not put back yet
    assert unlinked(1, path) == -errno.ENOENT


def test_a_worker_may_remove_what_it_alone_has(engine, sockets, path, unlinked):
    serve(engine, sockets(), path, 1)
    worker_of(engine, 2)
    assert unlinked(2, path) == 0 and os.path.exists(path)
    assert unlinked(1, path) == 0 and not os.path.exists(path)


def test_what_is_left_of_an_earlier_start_goes_when_it_is_asked(engine, path, folder, unlinked):
    """Not when the worker comes to run: by then a sibling may have bound there."""
    stale = unix()
    stale.bind(path)
    stale.close()
    worker_of(engine, 1)
    other = os.path.join(folder, "file")
    open(other, "w").close()
    for kept in other, os.path.join(folder, "x" * 108):
        assert unlinked(1, kept) is None
    assert os.path.exists(other)
    assert unlinked(1, path) == 0
    assert os.listdir(folder) == ["file"]
    assert unlinked(1, path) == -errno.ENOENT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has others' rights")
@pytest.mark.parametrize("fewer", [("--reuid", "65534"), ("--bounding-set", "-kill")])
def test_nothing_is_removed_for_one_with_other_rights(engine, path, unlinked, fewer):
    stale = unix()
    stale.bind(path)
    stale.close()
    worker_of(engine, 1)
    with subprocess.Popen(
        ["setpriv", *fewer, "sh", "-c", "echo; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        assert unlinked(1, path, pid=process.pid) is None
        process.communicate()
    assert os.path.exists(path)


def test_the_next_worker_brings_back_a_path_that_was_lost_for_good(engine, sockets, path):
    first, second, third = (sockets() for _ in range(3))
    worker = worker_of(engine, 1)
    assert engine.bind_unix(worker, first, path)
    for name in os.listdir(os.path.dirname(path)):
        os.unlink(os.path.join(os.path.dirname(path), name))
    assert engine.listen(worker, first)
    serve(engine, second, path, 2)
    serve(engine, third, path, 3)
    engine.steer(1, 2, 3)
    assert comes_to(path, second) and comes_to(path, third)


def test_a_bind_under_way_of_which_only_the_path_is_known(
    engine, sockets, path, unlinked, fault, monkeypatch
):
    """The kernel would have to ask the file system where that is."""
    worker, sock, answer, told = worker_of(engine, 1), sockets(), engine._later, []
    worker_of(engine, 2)

    def meanwhile():
        assert fault.disarm()
        told.append((unlinked(2, path), unlinked(2, path + "x")))
        return answer()

    monkeypatch.setattr(engine, "_later", meanwhile)
    fault.arm(1, errno.EAGAIN, "syscall", OPENAT2, sticky=True)
    assert engine.bind_unix(worker, sock, path)
    assert told == [(0, -errno.ENOENT)]
    assert engine.listen(worker, sock)
    assert comes_to(path, sock)


def test_a_path_removed_between_bind_and_listen_is_there_again(engine, sockets, path):
    first, second = sockets(), sockets()
    workers = [worker_of(engine, n) for n in (1, 2)]
    assert engine.bind_unix(workers[0], first, path)
    os.unlink(path)
    assert engine.listen(workers[0], first)
    assert comes_to(path, first)
    assert engine.bind_unix(workers[1], second, path)
    assert engine.listen(workers[1], second)
    assert comes_to(path, second) and comes_to(path, first)


def test_what_one_of_several_has_closed_and_removed_is_forgotten(engine, sockets, path, fds):
    before = fds()
    worker, sock = worker_of(engine, 1), unix()
    worker_of(engine, 2)
    leader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    worker.pid = leader.pid  # this process has the master's duplicate
    engine.bind_unix(worker, sock, path)
    engine.listen(worker, sock)
    sock.close()
    os.unlink(path)
    engine.wait_until(lambda events: engine.lanes() == [])
    assert os.listdir(os.path.dirname(path)) == []
    worker.pid = 0
    leader.communicate()
    left = {os.path.basename(str(fds()[number])) for number in fds().keys() - before.keys()}
    assert not any(name.startswith("recluster-") for name in left)


def test_a_private_directory_is_the_worker_s_own_business(engine, sockets, folder):
    worker = worker_of(engine, 1)
    while True:  # its time has the clock's tick
        inner = tempfile.mkdtemp(dir=folder)
        sock = sockets()
        if not engine.bind_unix(worker, sock, os.path.join(inner, "listener")):
            break
    assert not engine.listen(worker, sock)
    assert os.listdir(inner) == ["listener"]


def test_nine_bytes_of_path_are_seen_at_listen(engine, sockets):
    """The length of a netlink address, which the filter lets by."""
    path = f"/tmp/rc{os.getpid() % 100}"
    path = path + "x" * (9 - len(path))
    one, two = worker_of(engine, 1), worker_of(engine, 2)
    first, second = sockets(), sockets()
    try:
        first.bind(path)
        assert engine.listen(one, first)
        os.unlink(path)
        second.bind(path)
        assert engine.listen(two, second)
        engine.steer(1, 2)
        assert same(first, second) and comes_to(path, first)
    finally:
        engine.free()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


# ---- the end -------------------------------------------------------------------------------


def test_a_closed_address_refuses_and_is_gone_in_the_end(engine, sockets, path, lib):
    socks = [serve(engine, sockets(), path, n) for n in (1, 2)]
    engine.steer(1, 2)
    with connect(path):
        assert lib.rc_close_lanes(engine.pointer, 0) == 0
        assert refused(connect, path) == errno.ECONNREFUSED
        os.unlink(path)  # as gunicorn does, which takes it amiss if there is nothing
        engine.wait_until(lambda events: os.path.exists(path))
        assert refused(connect, path) == errno.ECONNREFUSED
        socks[0].accept()[0].close()
    engine.bury(1)
    engine.bury(2)
    assert os.listdir(os.path.dirname(path)) == []


def test_a_freed_engine_leaves_nothing(new_engine, sockets, path, fds):
    before = fds()
    engine, socks = new_engine(), [unix() for _ in range(3)]
    serve(engine, socks[0], path, 1)
    serve(engine, socks[1], path, 2, generation=2)
    engine.bind_unix(worker_of(engine, 3, 3), socks[2], path)
    engine.free()
    for sock in socks:
        sock.close()
    assert os.listdir(os.path.dirname(path)) == [] and fds() == before


# ---- abstract ---------------------------------------------------------------------------------


def test_an_abstract_name_is_one_socket_for_all(engine, sockets):
    name = f"\0recluster-test-{os.getpid()}"
    workers, socks = [worker_of(engine, n, n) for n in (1, 2, 3)], [sockets() for _ in range(3)]
    for worker, sock in zip(workers[:2], socks, strict=False):
        assert engine.bind_unix(worker, sock, name)
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

CALLS = (
    "fcntl",
    "calloc",
    "realloc",
    "fork",
    "listen",
    "linkat",
    "renameat",
    "mkdirat",
    "inotify_init1",
    "inotify_add_watch",
    "epoll_ctl",
)


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
        if not first:
            assert os.path.exists(path)
        engine.free()
        left = [one for one in os.listdir(os.path.dirname(path))]
        assert left in ([], ["app.socket"]), left
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if not hit:
            return
    raise AssertionError(f"{name} never ended to fail")
