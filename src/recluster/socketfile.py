"""The file of the control socket: where it is, and how a master comes to own it.

Owns the name in the file system, for both sides. Invariant: a file appears in one
step, with somebody listening behind it and mode 0600, and never replaces that of
a master that lives.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Mapping

RUN_DIRECTORY = "/run/recluster"
PATH_MOST = 107  # sockaddr_un
QUEUE = 64


class Refused(Exception):
    """There can be no control socket at that path; the message says why."""


def default_directory(uid: int, environ: Mapping[str, str]) -> str:
    if uid == 0:
        return RUN_DIRECTORY
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        with contextlib.suppress(OSError):
            found = os.stat(runtime)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:  # `su` keeps another's
                return os.path.join(runtime, "recluster")
    return f"/tmp/recluster-{uid}"


def likely_paths(pid: int, environ: Mapping[str, str]) -> list[str]:
    """Where the socket of that master may be, looked at from outside, whose
    environment may differ from the master's. Raises OSError if there is no such
    process."""
    uid = os.stat(f"/proc/{pid}").st_uid
    if uid == 0:
        return [f"{RUN_DIRECTORY}/{pid}.sock"]
    runtimes = [f"/run/user/{uid}"]
    if uid == os.geteuid():
        runtimes.insert(0, environ.get("XDG_RUNTIME_DIR", ""))
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            if entry.startswith(b"XDG_RUNTIME_DIR="):
                runtimes.insert(0, os.fsdecode(entry.partition(b"=")[2]))
    directories = [f"{runtime}/recluster" for runtime in runtimes if os.path.isabs(runtime)]
    return [f"{where}/{pid}.sock" for where in (*directories, f"/tmp/recluster-{uid}")]


def make_directory(path: str) -> None:
    """It is ours, and nobody else can put anything there; or Refused."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{path} is not a directory")
    if found.st_uid != os.geteuid():
        raise Refused(f"{path} belongs to another user")
    if found.st_mode & 0o022:
        raise Refused(f"others may write to {path}")


def inode_of(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _dead_socket(path: str) -> tuple[int, int]:
    """The inode of a socket nobody listens on, or Refused."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Refused(f"{path} exists, and is not a socket")
    inode = inode_of(path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return inode
        except BlockingIOError:  # its queue is full
            pass
    raise Refused(f"{path} is in use by another master")


def _put_in_place(private: str, path: str) -> None:
    """rename(2) would replace whatever has come to be there; link(2) does not."""
    try:
        os.link(private, path)
    except FileExistsError:
        dead, aside = _dead_socket(path), private + "-"
        os.rename(path, aside)
        try:
            if inode_of(aside) != dead:  # a master's that came in this moment: it stays
                os.link(aside, path)
            os.link(private, path)
        except FileExistsError:
            raise Refused(f"{path} is in use by another master") from None
        finally:
            os.unlink(aside)


def listen_at(path: str) -> socket.socket:
    """Appears at `path` in one step, listening and with mode 0600."""
    private = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    if len(os.fsencode(private)) > PATH_MOST:
        raise Refused(f"{path} is too long for a socket")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(private)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        os.fchmod(listener.fileno(), 0o600)  # bind(2) gives the file this mode
        listener.bind(private)
        try:
            listener.listen(QUEUE)
            _put_in_place(private, path)
        finally:
            os.unlink(private)
    except BaseException:
        listener.close()
        raise
    return listener
