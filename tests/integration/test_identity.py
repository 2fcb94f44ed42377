"""--user, --group, --umask: who workers are; --allow-bind: what is bound for them."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from clients import answers
from ctlcase import NOBODY, as_root
from harness import ENVIRONMENT, GENEROUS, Running, free_port
from namespaces import open_the_way
from test_rights import COMMON, Dropped, message, needs_setpriv, privileged_port

from recluster.options import Options

TELLS = """
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
mask = os.umask(0); os.umask(mask)
open("left-" + str(ID), "w").close()
tell(uids=os.getresuid(), gids=os.getresgid(), groups=os.getgroups(), umask=mask,
     eff=int(status["CapEff"], 16), permitted=int(status["CapPrm"], 16),
     ambient=int(status["CapAmb"], 16), fds=len(os.listdir("/proc/self/fd")),
     env={name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")})
listener = tcp(REUSE); listener.bind(("127.0.0.1", PORT)); listener.listen()
serve(listener)
"""
ASKS = """
listener = tcp(REUSE)
datagrams = socket.socket(type=socket.SOCK_DGRAM)
error = tried(listener.bind, (sys.argv[2], PORT))
if not error:
    listener.listen()  # before the datagrams: with those alone it is ready, too
tell(uid=os.getuid(), tcp=error, udp=tried(datagrams.bind, (sys.argv[2], PORT)))
if error:
    time.sleep(3600)
serve(listener)
"""


class Reached(Running):
    """A master in whose mounts everybody may reach this Python's library."""

    def _popen(self, command, **more):
        before = more.pop("preexec_fn", None)

        def prepare():
            if before:
                before()
            open_the_way()

        return super()._popen(command, preexec_fn=prepare, **more)


KINDS = ("forked", "fresh", "command", "preload", "mold")


@pytest.fixture
def program():
    """In a folder that anybody may enter and write to."""
    folder = Path(tempfile.mkdtemp(prefix="recluster-"))
    folder.chmod(0o777)

    def write(text):
        (folder / "program.py").write_text(COMMON + text)
        return "program.py"

    write.cwd = folder
    yield write
    shutil.rmtree(folder)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def words(kind, *program):
    """The same program as each kind of worker."""
    return {
        "forked": ("--door", "notify", *program),
        "fresh": ("--door", "notify", "--env", "PYTHONHASHSEED=1", *program),
        "command": ("--door", "notify", "--", sys.executable, *program),
        "preload": ("--door", "preload", *program),
        "mold": ("--door", "notify", "--preload", "json", *program),
    }[kind]


@as_root
def test_workers_are_that_user_and_nothing_more(program, kind):
    name, port = program(TELLS), free_port()
    options = ("--workers", 2, "--user", "nobody", "--umask", "027")
    with Reached(*options, *words(kind, name, port), cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        for slot in (0, 1):
            told = message(running, slot)
            assert told["uids"] == [NOBODY] * 3 and told["gids"] == [NOBODY] * 3
            assert told["groups"] == [NOBODY] and told["umask"] == 0o027
            assert (told["eff"], told["permitted"], told["ambient"]) == (0, 0, 0)
            assert told["env"]["USER"] == told["env"]["LOGNAME"] == "nobody"
            left = (program.cwd / f"left-{slot}").stat()
            assert left.st_uid == NOBODY and left.st_mode & 0o777 == 0o640
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        assert len(running.status()["lanes"]) == 2
        assert os.stat(f"/proc/{running.process.pid}").st_uid == 0
        (line,) = [line for line in running.log() if "workers are nobody:" in line]
        assert "stays uid 0" in line and "CAP_SETUID" in line
        running.reload()
        assert message(running)["uids"][0] == NOBODY
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        assert running.end() == 0


@as_root
@needs_setpriv
def test_in_a_container_the_preload_library_is_taken_at_once(program):
    """Without CAP_SYS_PTRACE they could not be looked into."""
    name, port = program(TELLS), free_port()
    options = ("--workers", 2, "--user", "nobody")

    class Contained(Reached, Dropped):
        pass

    with Contained(*options, name, port, cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        assert running.status()["door"] == "preload"
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        assert len([one for one in running.seen if one["event"] == "online"]) == 2
        assert running.end() == 0


@as_root
def test_numbers_and_a_group(program):
    options = ("--workers", 1, "--user", "12345", "--group", "54321", "--umask", "0")
    with Reached(*options, program(TELLS), free_port(), cwd=program.cwd) as running:
        told = message(running)
        assert told["uids"] == [12345] * 3 and told["gids"] == [54321] * 3
        assert told["groups"] == [54321] and told["umask"] == 0
        assert told["env"]["USER"] == os.environ.get("USER")
    with Reached("--group", "54321", program(TELLS), free_port(), cwd=program.cwd) as running:
        told = message(running)
        assert told["uids"] == [0] * 3 and told["gids"] == [54321] * 3


@as_root
def test_bind_is_theirs_too(program, kind):
    name, port = program(TELLS), privileged_port()
    options = ("--workers", 2, "--user", "nobody", "--bind", f"127.0.0.1:{port}")
    with Reached(*options, *words(kind, name, port), cwd=program.cwd) as running:
        running.wait_each("ready", 2)
        assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
        assert len(running.status()["lanes"]) == 2  # each has its own
        assert running.end() == 0


# ---- what is bound for them ---------------------------------------------------------------


@as_root
def test_what_is_allowed_is_had_and_the_rest_is_the_kernels(program, kind):
    name, port = program(ASKS), privileged_port()
    base = ("--workers", 2, "--user", "nobody")
    for allowed in (f"{port}", f"127.0.0.1:{port}"):
        options = (*base, "--allow-bind", "1", "--allow-bind", allowed)
        with Reached(*options, *words(kind, name, port, "127.0.0.1"), cwd=program.cwd) as running:
            running.wait_each("ready", 2)
            assert message(running) == {"uid": NOBODY, "tcp": 0, "udp": 0}
            assert {one["worker"] for one in answers(port, 60)} == {"0", "1"}
    for allowed in ("1", f"127.0.0.2:{port}", f"[::1]:{port}"):
        options = (*base, "--allow-bind", allowed)
        with Reached(*options, *words(kind, name, port, "127.0.0.1"), cwd=program.cwd) as running:
            refused = {"uid": NOBODY, "tcp": errno.EACCES, "udp": errno.EACCES}
            assert message(running) == refused


@as_root
def test_another_network_namespace_is_not_meant(program):
    name, port = program(ASKS.replace("listener = ", "enter()\nlistener = ", 1)), privileged_port()
    (program.cwd / "program.py").write_text(
        (program.cwd / "program.py")
        .read_text()
        .replace(
            "def drop():",
            "def enter():\n"
            "    if ctypes.CDLL(None).unshare(0x10000000 | 0x40000000): tell(skip=True)\n\n"
            "def drop():",
        )
    )
    options = ("--workers", 1, "--user", "nobody", "--allow-bind", port)
    with Reached(*options, name, port, "0.0.0.0", cwd=program.cwd) as running:
        told = message(running)
        if told.get("skip"):
            pytest.skip("no user namespaces here")
        # There it has every right of its own, and the master nothing to give.
        assert told["uid"] == NOBODY and told["tcp"] in (0, errno.EACCES)
        assert running.status()["lanes"] == [] or told["tcp"] == 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))  # here it is free


# ---- what cannot be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, line",
    [
        (("--user", "no-such"), "user: 'no-such' is not the name of a user here"),
        (("--group", "no-such"), "group: 'no-such' is not the name of a group here"),
        (("--user", "12345"), "user: 12345 has no account here: give --group too"),
        (("--umask", "8"), "umask: '8' must be octal digits, 000 to 777"),
        (("--allow-bind", "localhost:80"), "must be an address and not a name"),
        (("--allow-bind", "0"), "must be HOST:PORT"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(apps, options, line):
    with Running(*options, "http_server.py", free_port(), cwd=apps) as running:
        assert running.wait() == 2
        assert line in running.stderr() and len(running.stderr().splitlines()) == 1


def checked(cwd, *words):
    """`recluster check`, as nobody."""
    by = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    done = subprocess.run(
        [*by, sys.executable, "-m", "recluster", "check", *words],
        cwd=cwd,
        env={**ENVIRONMENT, "RECLUSTER_RUN_DIRECTORY": str(cwd / "run")},
        capture_output=True,
        text=True,
        timeout=GENEROUS,
        preexec_fn=open_the_way,
    )
    return done.returncode, done.stdout


@as_root
def test_what_is_printed_can_be_given(program):
    """As a file for --config has it."""
    name = program(TELLS)
    given = ["--user", "nobody", "--group", "54321", "--umask", "027"]
    given += ["--allow-bind", "80", "--allow-bind", "[::1]:81"]
    words = [sys.executable, "-m", "recluster", "check", "--print", *given, name]
    said = subprocess.run(
        words, cwd=program.cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=GENEROUS
    ).stdout
    assert 'user = "nobody"' in said and 'group = "54321"' in said and "umask = 23" in said
    assert 'allow_bind = ["80", "[::1]:81"]' in said
    assert Options.make({"umask": 23}).umask == 0o027


@as_root
@needs_setpriv
def test_who_may_not_says_what_is_missing(program):
    class Nobody(Reached):
        def _popen(self, command, **more):
            more["env"] = {**more["env"], "RECLUSTER_RUN_DIRECTORY": str(program.cwd / "run")}
            by = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
            return super()._popen([*by, *command], **more)

    name = program(TELLS)
    with Nobody("--user", "daemon", name, free_port(), cwd=program.cwd) as running:
        assert running.wait() == 1
        assert "lacks CAP_SETUID, CAP_SETGID, CAP_KILL" in running.stderr()
    for options, line in (
        (("--user", "daemon"), "workers of another user need CAP_SETUID"),
        (("--allow-bind", "80"), "allow_bind 80: it needs CAP_NET_BIND_SERVICE itself"),
    ):
        code, out = checked(program.cwd, *options, name)
        assert code == 1 and line in out
    with Nobody("--user", "nobody", "--workers", 1, name, free_port(), cwd=program.cwd) as running:
        assert message(running)["uids"] == [NOBODY] * 3
        running.wait_for("ready")
        assert running.end() == 0
