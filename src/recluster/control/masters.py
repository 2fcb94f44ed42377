"""The masters that run, found by their sockets: by name, by pid, or the only one.

For whoever asks. Imports next to nothing, as `places`. Reads the directories of the
asking user only, and trusts none that others may write to.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import struct

from .places import SUFFIX, directories, likely_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UCRED = struct.Struct("3i")
REFUSED = (errno.EACCES, errno.EPERM)


class Failed(Exception):
    """What to say on standard error, and the exit code."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


class Master:
    """A socket where a master listens, or did. `files`: its names in the directories;
    `pid` is 0 where the path does not tell it."""

    def __init__(self, path: str) -> None:
        self.path = path
        word = os.path.basename(path)[: -len(SUFFIX)]
        self.pid = int(word) if word.isdecimal() else 0
        self.name = ""
        self.files: list[str] = []

    def __str__(self) -> str:
        name, pid = self.name, f"pid {self.pid}"
        return f"{name} ({pid})" if name and self.pid else name or pid


def connect(path: str, timeout: float) -> tuple[_socket.socket, int]:
    """The connection, and the pid of who listens (0: not of our namespace). Raises
    OSError. A non-blocking connect would fail at once when the master's queue is
    full, so this one blocks, with a limit."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6) or 1)
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
        connection.connect(path)
        peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, UCRED.size)
        return connection, UCRED.unpack(peer)[0]
    except BaseException:
        connection.close()
        raise


# ---- all of them -------------------------------------------------------------------


def _ours(directory: str) -> bool:
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    mine = found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return stat.S_ISDIR(found.st_mode) and mine


def _files() -> Iterator[str]:
    for directory in directories(os.geteuid(), os.environ):
        if _ours(directory):
            try:
                entries = sorted(os.listdir(directory))
            except OSError:  # it has gone in this moment
                continue
            for entry in entries:
                if entry.endswith(SUFFIX) and not entry.startswith("."):
                    yield os.path.join(directory, entry)


def all_masters() -> list[Master]:
    """By name. Dead ones are among them: who connects finds out."""
    found: dict[str, Master] = {}
    for file in _files():
        try:
            path, named = os.path.join(os.path.dirname(file), os.readlink(file)), True
        except OSError:
            path, named = file, False
        master = found.setdefault(path, Master(path))
        master.files.append(file)
        if named:
            master.name = os.path.basename(file)[: -len(SUFFIX)]
    return sorted(found.values(), key=lambda one: (one.name, one.pid))


# ---- the one that is meant ---------------------------------------------------------


def reach(word: str | int | None, path: str | None, timeout: float) -> tuple[_socket.socket, str]:
    """A connection to the master at `path`, or of that name or pid, or to the only one
    there is; and what to call it. Raises Failed."""
    if path is not None:
        return _at(path, timeout, int(word or 0))
    if word is None:
        return _only_one(timeout)
    if isinstance(word, int) or word.isdecimal():
        return _of_pid(int(word), timeout)
    return _named(word, timeout)


def _at(path: str, timeout: float, pid: int) -> tuple[_socket.socket, str]:
    who = f"master {pid}" if pid else path
    try:
        connection, answers = connect(path, timeout)
    except OSError as error:
        raise _failed(error, path, who, timeout) from None
    if pid and answers and answers != pid:
        connection.close()
        raise Failed(f"no such master: {path} belongs to process {answers}, not {pid}")
    return connection, who


def _failed(error: OSError, path: str, who: str, timeout: float) -> Failed:
    if error.errno in REFUSED:
        return Failed(f"not permitted to ask {who}")
    if error.errno == errno.EAGAIN:
        return Failed(f"{who} did not answer within {timeout:g} s", 1)
    if error.errno == errno.ENOENT:
        return Failed(f"no such master: {path} does not exist")
    if error.errno == errno.ECONNREFUSED:
        return Failed(f"no such master: nobody listens at {path}")
    return Failed(f"{path}: {error.strerror or error}")


def _of_pid(pid: int, timeout: float) -> tuple[_socket.socket, str]:
    try:
        paths = likely_paths(pid, os.environ)
    except OSError:
        raise Failed(f"no such master: there is no process {pid}") from None
    refused: OSError | None = None
    for path in paths:
        try:
            connection, answers = connect(path, timeout)
        except OSError as error:
            if refused is None or error.errno in (*REFUSED, errno.EAGAIN):
                refused = error
            continue
        if answers in (0, pid):
            return connection, f"master {pid}"
        connection.close()
        raise Failed(f"no such master: {path} belongs to process {answers}, not {pid}")
    for master in all_masters():  # its socket may be elsewhere (--control PATH)
        try:
            connection, answers = connect(master.path, timeout)
        except OSError:
            continue
        if answers == pid:
            return connection, f"master {pid}"
        connection.close()
    if refused and refused.errno in (*REFUSED, errno.EAGAIN):
        raise _failed(refused, "", f"master {pid}", timeout)
    raise Failed(f"no such master: process {pid} has no control socket at its usual place")


def _named(name: str, timeout: float) -> tuple[_socket.socket, str]:
    masters = all_masters()
    for master in masters:
        if master.name == name:
            try:
                return connect(master.path, timeout)[0], name
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
                    raise _failed(error, master.path, name, timeout) from None
    names = ", ".join(str(master) for master in masters if master.name and _lives(master))
    raise Failed(
        f"no master is called {name!r}; " + (f"there is {names}" if names else "none runs")
    )


def _lives(master: Master) -> bool:
    try:
        connect(master.path, 0.1)[0].close()
    except OSError as error:
        return error.errno == errno.EAGAIN  # stopped, or very busy
    return True


def _only_one(timeout: float) -> tuple[_socket.socket, str]:
    found: list[tuple[_socket.socket, Master]] = []
    late: OSError | None = None
    masters = all_masters()
    for master in masters:
        try:
            connection, answers = connect(master.path, timeout)
        except OSError as error:
            late = error if error.errno == errno.EAGAIN else late
            continue
        master.pid = answers or master.pid
        found.append((connection, master))
    if len(found) == 1 and late is None:
        return found[0][0], str(found[0][1])
    for connection, _ in found:
        connection.close()
    if late is not None and not found:
        raise Failed(f"the master did not answer within {timeout:g} s", 1)
    if found:
        names = ", ".join(str(master) for _, master in found)
        raise Failed(f"several masters run: say which ({names})")
    raise Failed("no master of this user runs (a name, a PID or --control PATH says which)")
