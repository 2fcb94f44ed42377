"""The file of the control socket: how a master comes to own it, and who removes a dead one's.

Where it is, `places` knows. Invariant: a file appears in one
step, with somebody listening behind it and mode 0600, and never replaces that of
a master that lives.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

PATH_MOST = 107  # sockaddr_un
QUEUE = 64


class Refused(Exception):
    """There can be no control socket at that path; the message says why."""


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
    if _listens(path):
        raise Refused(f"{path} is in use by another master")
    return inode


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its queue is full (EAGAIN), or it is not ours to ask
            return True
    return True


def remove_dead(file: str) -> bool:
    """Remove a socket, or a link to one, behind which nobody listens. False if somebody
    does. Raises OSError."""
    aside = os.path.join(os.path.dirname(file), f".{os.path.basename(file)}.{os.getpid()}-")
    try:
        before = inode_of(file)
        target = os.path.join(os.path.dirname(file), os.readlink(file)) if _is_link(file) else file
        if _listens(target):
            return False
        os.rename(file, aside)
        try:
            if inode_of(aside) != before:  # a master's that came in this moment: it stays
                os.link(aside, file, follow_symlinks=False)
                return False
        finally:
            os.unlink(aside)
    except FileNotFoundError:  # somebody else was faster
        pass
    except FileExistsError:
        return False
    return True


def remove_ours(path: str, inode: tuple[int, int]) -> None:
    """The inode stays taken while we listen, so one that equals ours is ours."""
    with contextlib.suppress(OSError):
        if inode_of(path) == inode:
            os.unlink(path)


def _is_link(file: str) -> bool:
    return stat.S_ISLNK(os.lstat(file).st_mode)


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
