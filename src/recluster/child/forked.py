"""In a worker that was forked without exec: be `python FILE` or `python -m MODULE`.

Owns what the program can see of how it was started. `runpy.run_path` is not
equivalent: it restores sys.argv, puts its own module back and leaves its frames
in tracebacks.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import marshal
import os
import signal
import socket
import sys
import types
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER
from typing import Any, BinaryIO, NoReturn

from .. import _engine
from . import preloaded, startup
from .launch import Changes, Target
from .uncaught import NothingToRun, exit_code, report


class Forked(BaseException):
    """Raised in a forked worker, to unwind the master's frames."""

    def __init__(
        self,
        target: Target,
        args: tuple[str, ...],
        changes: Changes,
        cwd: str,
        channel: int,
        how: str,
        fresh: bool = False,
    ) -> None:
        """Made by the master, before the fork: what it touches here the child
        need not copy. `how`: letters (launch.Program.how). `fresh`: this interpreter has
        been nothing else before."""
        super().__init__("a forked worker")
        here = os.path.realpath(cwd)  # what getcwd() will be
        # Not normalised: nor does python.
        self.path = os.path.join(here, target.words[0]) if target.kind == "file" else here
        self.directory = os.path.dirname(os.path.realpath(self.path))
        self.target, self.args, self.changes = target, args, changes
        self.cwd, self.channel = cwd, channel
        self.how, self.fresh = how, fresh
        self.is_package = False  # FILE is a directory or an archive
        self.main: types.ModuleType | None = None  # of a mold's workers: it has made all ready
        self.library: dict[str, str] = {}  # what the preload library is told
        """How the library reaches the master; the program does not see it."""


def _fresh_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins)
    if sys.version_info < (3, 14):
        main.__dict__.update(__annotations__={})
    sys.modules["__main__"] = main
    return main


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


def _tell_line_by_line() -> None:
    """The master reads what is written to a pipe; a line is to be told when it is said."""
    with contextlib.suppress(Exception):  # there may be none, or one of another kind
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _set_path(first: str | None) -> None:
    """sys.path[0], and no module of ours where the program has one of that name."""
    startup.make_room(first)


def _is_importable(path: str) -> bool:
    """A directory or an archive: runs like a package, by its __main__."""
    for hook in sys.path_hooks:
        try:
            sys.path_importer_cache[path] = hook(path)
        except ImportError:
            continue
        except Exception:
            with contextlib.suppress(Exception):
                print("Failed checking if argv[0] is an import path entry", file=sys.stderr)
            raise
        return True
    return False


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        why = f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
        raise NothingToRun(why, 2) from None


def _bytecode(data: bytes) -> types.CodeType:
    if data[:4] != MAGIC_NUMBER:
        raise RuntimeError("Bad magic number in .pyc file")
    try:
        code = marshal.loads(data[16:])
    except (EOFError, ValueError, TypeError):
        code = None
    if not isinstance(code, types.CodeType):
        raise RuntimeError("Bad code object in .pyc file")
    return code


def _run_file(path: str, main: types.ModuleType) -> None:
    with _open(path) as file:
        data = file.read()
    compiled = path.endswith(".pyc") or data[:2] == MAGIC_NUMBER[:2]
    loader = SourcelessFileLoader if compiled else SourceFileLoader
    main.__dict__.update(__file__=path, __cached__=None, __loader__=loader("__main__", path))
    code = _bytecode(data) if compiled else compile(data, path, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _run_as_main(name: str, alter_argv: bool) -> None:
    import runpy

    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _begin_anew(worker: Forked) -> NoReturn:
    """As an interpreter of its own; the door and the channel stay."""
    os.set_inheritable(worker.channel, True)
    preloaded.add(worker.library)
    words = worker.target.fresh(worker.channel, worker.args, worker.how)
    os.execv(words[0], words)


def appear(worker: Forked) -> None:
    """What the program sees of how it was started, from its first import on: sys.argv,
    sys.path, and bind and listen as they should be."""
    target, name = worker.target, worker.target.words[0]
    # What the interpreter itself would have been given.
    dash_m = ["-m", name] if target.kind == "module" else [name]
    sys.orig_argv = [sys.orig_argv[0], *dash_m, *worker.args]
    sys.argv = ["-m" if target.kind == "module" else name, *worker.args]
    _hide_interruptions()
    if "d" in worker.how:
        _dump_when_aborted()
    own = startup.has_own_path()
    if target.kind == "module":
        _set_path(worker.path if own else None)
    elif _is_importable(worker.path):
        worker.is_package = True
        _set_path(worker.path)  # with -P and -I too
    else:
        _set_path(worker.directory if own else None)


def make_ready(worker: Forked) -> None:
    """In a mold, once for all its workers: each page that a worker need not touch is shared."""
    os.chdir(worker.cwd)
    preloaded.hide_library()
    _speak_plainly(worker)
    if worker.target.kind == "module" or worker.is_package:
        import runpy  # noqa: F401
    worker.main = _fresh_main()


def _speak_plainly(worker: Forked) -> None:
    if "l" in worker.how:
        _tell_line_by_line()


def _begin(worker: Forked) -> types.ModuleType:
    """In a worker that no mold has made ready. Returns its `__main__`."""
    for variable, value in worker.changes.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
    os.chdir(worker.cwd)
    preloaded.hide(worker.library)
    if not worker.fresh:
        if startup.is_particular():
            _begin_anew(worker)
        startup.forget_archives()
    appear(worker)
    _speak_plainly(worker)
    return _fresh_main()


def become(worker: Forked) -> int:
    """Run the program; returns its exit code, for sys.exit."""
    channel = worker.channel
    try:
        main = worker.main or _begin(worker)
        if worker.target.kind == "module":
            _run_as_main(worker.target.words[0], True)
        elif worker.is_package:
            _run_as_main("__main__", False)
        else:
            _run_file(worker.path, main)
    except SystemExit as error:
        return exit_code(error, channel)
    except KeyboardInterrupt as error:
        report(error, channel)
        _engine.finalize_and_die(int(signal.SIGINT))
    except BaseException as error:
        report(error, channel)
        return 1
    return 0
