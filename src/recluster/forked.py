"""In a worker that was forked without exec: be `python FILE` or `python -m MODULE`.

Owns what the program can see of how it was started. `runpy.run_path` is not
equivalent: it restores sys.argv, puts its own module back and leaves its frames
in tracebacks.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import functools
import json
import os
import runpy
import signal
import socket
import sys
import types
from importlib.machinery import SourceFileLoader
from types import TracebackType
from typing import Any
from zipimport import ZipImportError, zipimporter

from . import _engine
from .launch import Changes, Target

ZIP_TAIL = 22 + 65535  # the record, and its longest comment


class Forked(BaseException):
    """Raised in a forked worker, to unwind the master's frames."""

    def __init__(
        self,
        target: Target,
        args: tuple[str, ...],
        changes: Changes,
        cwd: str,
        channel: int,
        dumps: bool,
        passes: bool = False,
    ) -> None:
        """Made by the master, before the fork: what it touches here the child
        need not copy."""
        super().__init__("a forked worker")
        here = os.path.realpath(cwd)  # what getcwd() will be
        # Not normalised: nor does python.
        self.path = os.path.join(here, target.words[0]) if target.kind == "file" else here
        self.importable = target.kind == "file" and is_importable(self.path)
        self.directory = os.path.dirname(os.path.realpath(self.path))
        self.target, self.args, self.changes = target, args, changes
        self.cwd, self.channel, self.dumps, self.passes = cwd, channel, dumps, passes


def _fresh_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins)
    if sys.version_info < (3, 14):
        main.__dict__.update(__annotations__={})
    sys.modules["__main__"] = main
    return main


def _forget_master() -> None:
    """Exit handlers of the master are not the worker's; logging's is everybody's."""
    atexit._clear()
    logging = sys.modules.get("logging")
    if logging is not None:
        atexit.register(logging.shutdown)


def _retrying(method: Any) -> Any:
    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        while True:
            try:
                return method(*arguments)
            except InterruptedError:
                pass

    return call


def _hide_interruptions() -> None:
    """A handler without SA_RESTART (any of module signal's) that runs while bind
    or listen waits for the master to take the call makes it return EINTR, which no
    program expects; once it is taken, the kernel waits (Linux 5.19). The master
    answers a repeated call as the first."""
    for name in ("bind", "listen"):
        setattr(socket.socket, name, _retrying(getattr(socket.socket, name)))


def _dump_when_aborted() -> None:
    """Where it hangs is written to stderr, even from inside a C call."""
    import faulthandler

    with contextlib.suppress(Exception):  # there may be no stderr
        faulthandler.enable()


def _set_path(first: str) -> None:
    """sys.path[0], which `python -m recluster` has set for itself; python -P sets none."""
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0:1] = [first]


def is_importable(path: str) -> bool:
    """A directory or a zip file with a __main__: runs like a package."""
    if os.path.isdir(path):
        return True
    try:
        if _ends_like_zip(path):
            zipimporter(path)
            return True
    except (OSError, ZipImportError):
        pass
    return False


def _ends_like_zip(path: str) -> bool:
    """Cheap, because asked at every spawn: the end-of-directory record is there,
    followed by a comment at most."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        return b"PK\5\6" in os.pread(fd, ZIP_TAIL, max(0, size - ZIP_TAIL))
    finally:
        os.close(fd)


def _run_file(path: str, directory: str) -> None:
    _set_path(directory)
    main = _fresh_main()
    main.__dict__.update(
        __file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path)
    )
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _run_package(path: str) -> None:
    _set_path(path)
    _fresh_main()
    runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]


def _run_module(name: str, cwd: str) -> None:
    _set_path(cwd)
    _fresh_main()
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    """Without the frames of this file."""
    while traceback and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback


def _tell_master(channel: int, error: str) -> None:
    """The last line of the traceback, for the verdict of a reload."""
    line = json.dumps({"cmd": "recluster.error", "error": error[:500]}) + "\n"
    with contextlib.suppress(OSError):
        os.write(channel, line.encode())


def _exit_code(error: SystemExit, channel: int) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    _tell_master(channel, str(error.code))
    with contextlib.suppress(Exception):
        print(error.code, file=sys.stderr)
    return 1


def _report(error: BaseException, channel: int) -> None:
    error.__traceback__ = _theirs(error.__traceback__)
    sys.last_type, sys.last_value = type(error), error
    sys.last_traceback = error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    from traceback import format_exception_only

    _tell_master(channel, format_exception_only(type(error), error)[-1].strip())
    sys.excepthook(type(error), error, error.__traceback__)


def become(worker: Forked) -> int:
    """Run the program; returns its exit code, for sys.exit."""
    target, args, channel = worker.target, worker.args, worker.channel
    name = target.words[0]
    try:
        for variable, value in worker.changes.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        os.chdir(worker.cwd)
        if worker.passes:
            from . import accepting

            accepting.install()
        _forget_master()
        # What the interpreter itself would have been given.
        dash_m = ["-m", name] if target.kind == "module" else [name]
        sys.orig_argv = [sys.orig_argv[0], *dash_m, *args]
        sys.argv = ["-m" if target.kind == "module" else name, *args]
        _hide_interruptions()
        if worker.dumps:
            _dump_when_aborted()
        if target.kind == "module":
            _run_module(name, worker.path)
        elif worker.importable:
            _run_package(worker.path)
        else:
            _run_file(worker.path, worker.directory)
    except SystemExit as error:
        return _exit_code(error, channel)
    except KeyboardInterrupt as error:
        _report(error, channel)
        _engine.finalize_and_die(int(signal.SIGINT))
    except BaseException as error:
        _report(error, channel)
        return 1
    return 0
