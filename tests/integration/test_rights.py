"""Rights: the kernel answers a worker's bind, and the master lends it nothing.

Each program tells by message what the kernel said to it. Those with another user need
root; they are bound to fail with the master's rights and must fail with their own.
"""

import ctypes
import errno
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from clients import GENEROUS, answers, get
from ctlcase import NOBODY, as_root
from harness import ENVIRONMENT, Running, free_port, until

DOORS = ("notify", "preload")
FREE_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

# A server of one thread, and what the programs below have in common.
COMMON = """
import ctypes, errno, json, os, socket, struct, sys, time
from recluster import worker

def tell(**facts):
    worker.send(facts)

def tried(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno
    return 0

def drop():
    os.setgroups([]); os.setgid(65534); os.setuid(65534)

def tcp(*options):
    made = socket.socket()
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    return made

def serve(listener):
    me = json.dumps({"worker": os.environ["WORKER_ID"], "pid": os.getpid()}).encode()
    while True:
        connection, _ = listener.accept()
        try:
            if connection.recv(65536):  # else it was the master, to see that it is taken
                connection.sendall(
                    b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(me), me))
        except OSError:
            pass
        connection.close()

ID, PORT = int(os.environ["WORKER_ID"]), int(sys.argv[1])
REUSE = socket.SO_REUSEADDR
"""


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


@pytest.fixture
def program(tmp_path):
    """Writes a program and returns how it is run."""

    def write(text):
        (tmp_path / "program.py").write_text(COMMON + text)
        return "program.py"

    write.cwd = tmp_path
    return write


def privileged_port():
    """One that only root may bind, and that is free."""
    ports = list(range(512, int(FREE_PORTS.read_text())))
    random.shuffle(ports)  # tests that run at a time take others
    for port in ports:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no port is privileged here")


def message(running, slot=0):
    return running.wait_for("message", slot=slot)["message"]


# ---- a root master, and a worker without rights ----------------------------------------


@as_root
def test_a_privileged_port_is_refused_to_who_may_not_bind_it(program, door):
    name = program("""
drop()
listener, datagrams = tcp(REUSE), socket.socket(type=socket.SOCK_DGRAM)
tell(tcp=tried(listener.bind, ("127.0.0.1", PORT)),
     udp=tried(datagrams.bind, ("127.0.0.1", PORT)),
     bound=[listener.getsockname()[1], datagrams.getsockname()[1]])
time.sleep(3600)
""")
    options = ("--workers", 1, "--door", door)
    with Running(*options, name, privileged_port(), cwd=program.cwd) as running:
        told = message(running)
        assert told == {"tcp": errno.EACCES, "udp": errno.EACCES, "bound": [0, 0]}


@as_root
def test_a_privileged_port_is_had_by_who_may(program, door):
    """Bound as root; the rights go between bind and listen, as many servers do it."""
    name = program("""
listener, datagrams = tcp(REUSE), socket.socket(type=socket.SOCK_DGRAM)
tell(tcp=tried(listener.bind, ("127.0.0.1", PORT)),
     udp=tried(datagrams.bind, ("127.0.0.1", PORT)))
drop()
listener.listen()
serve(listener)
""")
    port = privileged_port()
    with Running("--workers", 2, "--door", door, name, port, cwd=program.cwd) as running:
        for slot in (0, 1):
            assert message(running, slot) == {"tcp": 0, "udp": 0}
            running.wait_for("listening", slot=slot, address=f"127.0.0.1:{port}")
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}


@as_root
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_a_socket_is_never_given_to_the_user_of_its_group(program, door, kind):
    """The group is root's: who is not root is refused, and its socket stays its own."""
    name = program(f"""
if ID:
    drop()
listener = socket.socket(type=socket.{kind})
if ID:
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
error = tried(listener.bind, ("127.0.0.1", PORT))
if not ID and listener.type == socket.SOCK_STREAM:
    listener.listen()
tell(error=error, user=os.fstat(listener.fileno()).st_uid)
time.sleep(3600)
""")
    begun = Path(f"/tmp/rights-{os.getpid()}-{kind}-{door}")
    options = ("--workers", 2, "--door", door)
    try:
        with Running(*options, name, free_port(), begun, cwd=program.cwd) as running:
            assert message(running, 0) == {"error": 0, "user": 0}
            begun.touch()
            assert message(running, 1) == {"error": errno.EADDRINUSE, "user": NOBODY}
    finally:
        begun.unlink(missing_ok=True)


# ---- ports and namespaces ----------------------------------------------------------------


def test_outgoing_connections_from_port_0_do_not_share_a_port(program, door):
    name = program("""
listener = tcp(REUSE)
listener.bind(("127.0.0.1", PORT)); listener.listen()
made, errors = [], []
for _ in range(3):
    made.append(tcp(REUSE))
    made[-1].bind(("127.0.0.1", 0))
    errors.append(tried(made[-1].connect, ("127.0.0.1", int(sys.argv[2]))))
tell(errors=errors)
serve(listener)
""")
    with socket.create_server(("127.0.0.1", 0)) as peer:
        where = peer.getsockname()[1]
        options = ("--workers", 3, "--door", door)
        with Running(*options, name, free_port(), where, cwd=program.cwd) as running:
            assert [message(running, slot)["errors"] for slot in range(3)] == [[0, 0, 0]] * 3


def test_port_0_is_one_port_beside_clients_that_bind_port_0(program, door):
    """Clients come before the listener, stay open, and are not the same in each worker."""
    name = program("""
clients = [tcp(REUSE) for _ in range(ID + 1)]
for client in clients:
    client.bind(("127.0.0.1", 0))
    client.connect(("127.0.0.1", PORT))
listener = tcp(REUSE)
listener.bind(("127.0.0.1", 0)); listener.listen()
tell(port=listener.getsockname()[1])
serve(listener)
""")
    with socket.create_server(("127.0.0.1", 0)) as peer:
        where = peer.getsockname()[1]
        options = ("--workers", 3, "--door", door)
        with Running(*options, name, where, cwd=program.cwd) as running:
            (port,) = {message(running, slot)["port"] for slot in range(3)}
            running.wait_each("ready", 3)
            assert {one["worker"] for one in answers(port, 60)} == {"0", "1", "2"}


SHARES = """
listener = tcp(socket.SO_REUSEPORT)
listener.bind(("127.0.0.1", PORT)); listener.listen()
serve(listener)
"""


@pytest.mark.parametrize("before", ["alone", "a cluster"])
def test_who_sets_so_reuseport_alone_is_started_again_at_once(program, door, before):
    """Its connections are in TIME_WAIT: the server closes first."""
    name, port = program(SHARES), free_port()
    options = ("--workers", 2, "--door", door, name, port)
    if before == "alone":
        command = [sys.executable, name, str(port)]
        env = {**ENVIRONMENT, "WORKER_ID": "0"}
        with subprocess.Popen(command, cwd=program.cwd, env=env) as alone:
            until(lambda: connects(port))
            answers(port, 5)
            alone.kill()
    else:
        with Running(*options, cwd=program.cwd) as running:
            running.wait_each("ready", 2)
            answers(port, 20)
            assert running.end() == 0
    with Running(*options, cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}


def connects(port):
    try:
        return get(port)
    except ConnectionRefusedError:
        return None


def test_a_second_cluster_of_such_servers_is_refused(program, door):
    name, port = program(SHARES), free_port()
    options = ("--workers", 2, "--door", door, "--give-up", 2, name, port)
    with Running(*options, cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        with Running(*options, cwd=program.cwd) as second:
            assert second.wait() == 1
            assert "Address already in use" in second.stderr()
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number is that of x86-64")
def test_a_length_is_compared_as_the_kernel_does(program):
    """It takes an int: what is above 32 bits is not seen by it, nor by the door."""
    name = program("""
listener = tcp(REUSE)
address = struct.pack("=H2s4s8x", socket.AF_INET, PORT.to_bytes(2, "big"), b"\\x7f\\0\\0\\1")
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long]
if libc.syscall(49, listener.fileno(), address, 0x100000010):
    raise OSError(ctypes.get_errno(), "bind")
listener.listen()
serve(listener)
""")
    port = free_port()
    with Running("--workers", 2, "--door", "notify", name, port, cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        assert len(running.status()["lanes"]) == 2
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}


@as_root
def test_an_address_in_another_network_namespace_is_another_group(program, door):
    """A listener that is not reached from here takes no part in what is."""
    name = program("""
CLONE_NEWNET = 0x40000000
if os.fork() == 0:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    inside = tcp(REUSE)
    inside.bind(("0.0.0.0", PORT)); inside.listen()
    tell(inside=True)
    time.sleep(3600)
listener = tcp(REUSE)
listener.bind(("0.0.0.0", PORT)); listener.listen()
serve(listener)
""")
    if ctypes.CDLL(None).unshare(0):
        pytest.skip("no unshare here")
    port = free_port()
    with Running("--workers", 2, "--door", door, name, port, cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        for slot in (0, 1):
            assert message(running, slot) == {"inside": True}
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        assert running.reload()["ok"]
        for slot in (0, 1):
            running.wait_for("message", slot=slot, generation=2)
        pids = set(running.pids().values())
        assert {get(port, timeout=GENEROUS)["pid"] for _ in range(60)} == pids


# ---- rights that the master lacks ----------------------------------------------------------


class Dropped(Running):
    """A master as root is in most containers: without CAP_SYS_PTRACE."""

    def _popen(self, command, **more):
        kept = "-all,+setuid,+setgid,+kill,+dac_override"
        return super()._popen(
            ["setpriv", "--inh-caps", kept, "--bounding-set", kept, *command], **more
        )


needs_setpriv = pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")


@as_root
@needs_setpriv
@pytest.mark.parametrize("when", ["before bind", "before listen"])
def test_a_program_that_drops_its_rights_gets_the_other_door(program, when):
    name = program(f"""
listener = tcp(REUSE)
if {when == "before bind"}:
    drop()
listener.bind(("127.0.0.1", PORT))
if {when == "before listen"}:
    drop()
listener.listen()
serve(listener)
""")
    port = free_port()
    with Dropped("--workers", 2, name, port, cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        (line,) = {one.partition(": ")[2].partition("workers get")[1] for one in running.log()} - {
            ""
        }
        assert line and "CAP_SYS_PTRACE is missing" in running.stderr()
        # A sibling may still meet the port of the one that is started again.
        errors = [running.stderr().count(one) for one in ("Traceback", "Address already in use")]
        assert when == "before listen" or errors[0] <= errors[1]
        assert running.reload()["ok"]
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        assert running.end() == 0


@as_root
@needs_setpriv
def test_where_the_other_door_is_not_wanted_it_is_told_why_there_is_no_lane(program):
    name = program("""
drop()
listener = tcp(REUSE)
tell(error=tried(listener.bind, ("127.0.0.1", PORT)))
time.sleep(3600)
""")
    options = ("--workers", 1, "--door", "notify")
    with Dropped(*options, name, free_port(), cwd=program.cwd) as running:
        assert message(running) == {"error": 0}
        assert "what it binds there is its own, and no lane" in running.stderr()


# ---- the master waits for nothing of a worker's -------------------------------------------


def heals(running, program_port):
    """The master still sees to its workers, though one of them is up to something."""
    pids = running.pids()
    os.kill(pids[1], signal.SIGKILL)
    running.wait_for("exit", slot=1, pid=pids[1])
    running.wait_for("ready", slot=1, where=lambda event: event["pid"] != pids[1])
    assert {one["worker"] for one in answers(program_port, 20)} <= {"0", "1"}


@as_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("call", ["bind", "unlink"])
def test_memory_that_nobody_fills_does_not_hold_up_the_master(program, call):
    """An address on a page under userfaultfd(2): whoever reads it waits for ever."""
    name = program(f"""
import mmap, threading
libc = ctypes.CDLL(None, use_errno=True)
listener = tcp(REUSE)
listener.bind(("127.0.0.1", PORT)); listener.listen()
if ID == 0:
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    where = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fault = libc.syscall(323, os.O_CLOEXEC)
    api = ctypes.create_string_buffer(struct.pack("=QQQ", 0xAA, 0, 0))
    range_ = ctypes.create_string_buffer(struct.pack("=QQQQ", where, 4096, 1, 0))
    if fault < 0 or libc.ioctl(fault, 0xC018AA3F, api) or libc.ioctl(fault, 0xC020AA00, range_):
        tell(error=ctypes.get_errno())
    else:
        libc.syscall.argtypes = [ctypes.c_long] * 4
        numbers = {{"bind": (49, tcp().detach(), where, 16), "unlink": (87, where, 0, 0)}}
        for _ in range(10):  # more than are looked at
            threading.Thread(target=libc.syscall, args=numbers[{call!r}], daemon=True).start()
        tell(error=0)
serve(listener)
""")
    port = free_port()
    # A word that looks like the path of a socket: then unlink is seen too.
    with Running(
        "--workers", 2, "--door", "notify", name, port, "x.sock", cwd=program.cwd
    ) as running:
        running.wait_each("ready", 2)
        if message(running)["error"]:
            pytest.skip("userfaultfd is refused here")
        heals(running, port)


def mount_file(device, path):
    """FUSE over a file, in a mount namespace of this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=100644,user_id=0,group_id=0".encode()
    for call in (
        lambda: libc.unshare(0x20000),  # CLONE_NEWNS
        lambda: libc.mount(None, b"/", None, 0x44000, None),  # MS_REC | MS_PRIVATE
        lambda: libc.mount(b"hung", os.fsencode(path), b"fuse", 0, options),
    ):
        if call() < 0:
            raise OSError(ctypes.get_errno(), "mount")


INIT, OPEN, GETATTR = 26, 14, 3


def answer_until_opened(device):
    """Be the file system until the file is open; nothing is answered after that."""
    attributes = struct.pack("=QII 6Q 3I 7I", 0, 0, 0, 1, *[0] * 5, *[0] * 3, 0o100644, 1, *[0] * 5)
    replies = {
        INIT: struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0),
        GETATTR: attributes,
        OPEN: struct.pack("=QII", 1, 0, 0),
    }
    opened = False
    while not opened:
        assert select.select([device], [], [], GENEROUS)[0]
        request = os.read(device, 1 << 20)
        _, kind, unique = struct.unpack_from("=IIQ", request)
        body = replies.get(kind)
        error = 0 if body else -errno.ENOSYS
        body = body or b""
        os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)
        opened = kind == OPEN


@as_root
@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")
@pytest.mark.parametrize("call", ["bind", "listen"])
def test_a_file_that_nobody_serves_does_not_hold_up_the_master(program, call):
    """Given for a socket: who looks at it, or closes a duplicate of it, waits for ever."""
    name = program(f"""
listener = tcp(REUSE)
listener.bind(("127.0.0.1", PORT)); listener.listen()
if ID == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open(sys.argv[2], os.O_RDONLY)
    address = struct.pack("=H2s4s8x", socket.AF_INET, b"\\0\\0", b"\\x7f\\0\\0\\1")
    if {call == "bind"}:
        libc.bind(file, address, 16)
    else:
        libc.listen(file, 5)
    tell(error=ctypes.get_errno())
serve(listener)
""")
    file, port = program.cwd / "file", free_port()
    file.touch()
    device = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(device, True)
    options = ("--workers", 2, "--door", "notify")
    try:
        with Running(
            *options, name, port, file, cwd=program.cwd, preexec_fn=lambda: mount_file(device, file)
        ) as running:
            answer_until_opened(device)
            running.wait_each("ready", 2)
            assert message(running) == {"error": errno.ENOTSOCK}
            heals(running, port)
            os.close(device)  # what waits in it ends
            device = None
            assert running.end() == 0
    finally:
        if device is not None:
            os.close(device)
