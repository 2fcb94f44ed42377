"""What a worker runs, and how: FILE, MODULE or COMMAND.

Nothing of the program is opened, read or imported here, only looked at (stat): whether
it can run, the worker finds out. Relative paths and the working directory are resolved
anew for each worker, so that a reload follows `current -> releases/42`.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..options import Options
from ..options.checks import OptionError, refused, text
from ..systemd import sdnotify
from .nested import reloader_of

SHIM = str(next(Path(__file__).parents[1].glob("_shim*.so"), ""))

RUN = str(Path(__file__).with_name("run.py"))
DESCRIBED_MOST = 300
_PATH = re.compile(r"\bunix:|\.sock(et)?\b|^--?uds\b")

# gunicorn, uvicorn and others would start that many workers in each worker.
NOT_FOR_WORKERS = ("WEB_CONCURRENCY", *sdnotify.VARIABLES)


def logical_cwd() -> str:
    """The working directory as it was entered, symbolic links kept ($PWD)."""
    logical = os.environ.get("PWD", "")
    try:
        if os.path.isabs(logical) and os.path.samefile(logical, "."):
            return logical
    except OSError:
        pass
    return os.getcwd()


@dataclass(frozen=True)
class Target:
    """`kind` is "file", "module" or "command"; `words` the name and, of a
    command, its arguments."""

    kind: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, target: object, module: object) -> Target:
        if (target is None) == (module is None):
            raise OptionError("target: give a file, a command list, or module=, and one only")
        if module is not None:
            if not isinstance(module, str) or not module or "\0" in module:
                raise OptionError(f"module: {module!r} must be the name of a module")
            return cls("module", (module,))
        several = isinstance(target, Sequence) and not isinstance(target, (str, bytes, bytearray))
        given = list(target) if several else [target]  # type: ignore[call-overload]
        try:
            words = tuple(text(word) for word in given)
        except ValueError as error:
            raise refused("target", target, error) from None
        if not words or not words[0]:
            raise OptionError(f"target: {target!r} must be a path or a non-empty list of words")
        return cls("command" if several else "file", words)

    def check(self, cwd: str, environ: Mapping[str, str]) -> None:
        """Raises OptionError when FILE or COMMAND is not there. (Of a MODULE only an
        interpreter that imports knows.)"""
        name = self.words[0]
        if self.kind == "file":
            path = os.path.join(cwd, name)
            if not os.path.exists(path):
                raise OptionError(f"FILE: {name!r} does not exist")
            if not os.access(path, os.R_OK):
                raise OptionError(f"FILE: {name!r} cannot be read")
        elif self.kind == "command" and _which(name, cwd, environ) is None:
            raise OptionError(f"COMMAND: {name!r} was not found")

    def command(
        self, cwd: str, environ: Mapping[str, str], args: tuple[str, ...], how: str
    ) -> list[str]:
        """The words to execute, the path first. Raises OSError if it is gone."""
        if self.kind == "command":
            path = _which(self.words[0], cwd, environ)
            if path is None:
                raise FileNotFoundError(2, "command not found", self.words[0])
            return [path, *self.words[1:], *args]
        return self.fresh(int(environ["NODE_CHANNEL_FD"]), args, how)

    def fresh(self, channel: int, args: tuple[str, ...], how: str) -> list[str]:
        """The words of a FILE or MODULE in an interpreter of its own (run.py)."""
        return [*interpreter(), RUN, str(channel), f"-{how}", self.kind, *self.words, *args]


@functools.cache
def interpreter() -> list[str]:
    """This interpreter with its own flags (-X, -W, -O, -I ...)."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    return [sys.executable, *_args_from_interpreter_flags()]


def _which(name: str, cwd: str, environ: Mapping[str, str]) -> str | None:
    if os.path.dirname(name):
        name = os.path.join(cwd, name)
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    return os.path.join(cwd, found) if found else None


Changes = dict[str, str | None]


def changed(environ: Mapping[str, str], changes: Changes) -> dict[str, str]:
    """The environment with the changes; None takes a variable away."""
    both = {**environ, **changes}
    return {name: value for name, value in both.items() if value is not None}


class Program:
    """The target with all that the options say about running it. `filed`: what env files
    say; it changes, as the options do, at a reload."""

    def __init__(self, target: Target, options: Options, filed: Changes) -> None:
        self.target = target
        self._options = options
        self._filed = filed
        self._start = logical_cwd()
        self._changes: Changes = {}
        words = [*target.words, *options.args, *(str(value) for value in self.wanted.values())]
        self.names_path = any(_PATH.search(word) for word in words)
        """Some word looks like the path of a socket: what the engine may expect.
        A path that only the program knows is seen when the first worker binds it."""

    @property
    def args(self) -> tuple[str, ...]:
        return self._options.args

    @property
    def needs_exec(self) -> bool:
        # Such variables are read when an interpreter, or the loader, starts.
        early = any(name.startswith(("PYTHON", "LD_")) for name in self.wanted)
        return self.target.kind == "command" or early

    @property
    def wanted(self) -> Changes:
        return {**self._filed, **self._options.env}

    def cwd(self) -> str:
        """With its symbolic links, which are resolved by whoever enters it."""
        return os.path.join(self._start, self._options.cwd or "")

    def changes(self) -> Changes:
        """How a worker's environment differs from the master's."""
        return {**dict.fromkeys(NOT_FOR_WORKERS), **self._changes, **self.wanted}

    def change(self, changes: Changes) -> None:
        """Of the workers' environment; what the options say goes before it."""
        self._changes.update(changes)

    @property
    def how(self) -> str:
        """What a worker in Python is to know, in letters: d (dumps), l (it is read line by
        line). The spawner adds p: connections are passed to it."""
        return "d" * self.dumps + "l" * self._options.prefix

    @property
    def dumps(self) -> bool:
        """A hung worker is to write its stack when it gets SIGABRT (faulthandler)."""
        return bool(self._options.hang_timeout)

    def reloader(self) -> str | None:
        """A line, where the program would restart its workers by itself."""
        environ = changed(os.environ, self.changes())
        return reloader_of(self.target.words, self.args, environ)

    def described(self) -> str:
        """As one would type it; what is too long is cut."""
        dash_m = ["-m"] if self.target.kind == "module" else []
        text = " ".join(shlex.quote(word) for word in (*dash_m, *self.target.words, *self.args))
        return text if len(text) <= DESCRIBED_MOST else f"{text[:DESCRIBED_MOST]}..."

    def check(self) -> None:
        """Raises OptionError when FILE or COMMAND is not there."""
        self.target.check(self.cwd(), changed(os.environ, self.changes()))

    def command(self, environ: Mapping[str, str]) -> list[str]:
        return self.target.command(self.cwd(), environ, self.args, self.how)
