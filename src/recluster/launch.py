"""What a worker runs, and how: FILE, MODULE or COMMAND. Imports no user code.

Relative paths and the working directory are resolved anew for each worker, so
that a reload follows `current -> releases/42`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path

from .checks import OptionError
from .options import Options

SHIM = str(next(Path(__file__).parent.glob("_shim*.so"), ""))

RUN = str(Path(__file__).with_name("run.py"))
_PATH = re.compile(r"\bunix:|\.sock(et)?\b|^--?uds\b")

# gunicorn, uvicorn and others would start that many workers in each worker.
NOT_FOR_WORKERS = ("WEB_CONCURRENCY",)


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
    def of(cls, target: object, module: str | None) -> Target:
        if (target is None) == (module is None):
            raise OptionError("target: give a file, a command list, or module=, and one only")
        if module is not None:
            return cls("module", (module,))
        if isinstance(target, (str, os.PathLike)):
            return cls("file", (os.fspath(target),))
        if isinstance(target, Sequence) and target:
            return cls("command", tuple(os.fspath(word) for word in target))
        raise OptionError(f"target: {target!r} must be a path or a non-empty list of words")

    def check(self, cwd: str, environ: Mapping[str, str]) -> None:
        """Raises OptionError when FILE, MODULE or COMMAND is not there."""
        name = self.words[0]
        if self.kind == "file":
            path = os.path.join(cwd, name)
            if not os.path.exists(path):
                raise OptionError(f"FILE: {name!r} does not exist")
            if os.path.isdir(path) and not os.path.exists(os.path.join(path, "__main__.py")):
                raise OptionError(f"FILE: {name!r} is a directory without a __main__.py")
            if not os.access(path, os.R_OK):
                raise OptionError(f"FILE: {name!r} cannot be read")
        elif self.kind == "module":
            if not _module_exists(name, cwd):
                raise OptionError(f"MODULE: there is no module named {name!r}")
        elif _which(name, cwd, environ) is None:
            raise OptionError(f"COMMAND: {name!r} was not found")

    def command(
        self, cwd: str, environ: Mapping[str, str], args: tuple[str, ...], dumps: bool
    ) -> list[str]:
        """The words to execute, the path first. Raises OSError if it is gone."""
        if self.kind == "command":
            path = _which(self.words[0], cwd, environ)
            if path is None:
                raise FileNotFoundError(2, "command not found", self.words[0])
            return [path, *self.words[1:], *args]
        told = [environ["NODE_CHANNEL_FD"], "1" if dumps else "0"]
        return [*interpreter(), RUN, *told, self.kind, *self.words, *args]


def interpreter() -> list[str]:
    """This interpreter with its own flags (-X, -W, -O, -I ...)."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    return [sys.executable, *_args_from_interpreter_flags()]


def _which(name: str, cwd: str, environ: Mapping[str, str]) -> str | None:
    if os.path.dirname(name):
        name = os.path.join(cwd, name)
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    return os.path.join(cwd, found) if found else None


def _module_exists(name: str, cwd: str) -> bool:
    """Without importing: find_spec of importlib would import the parents."""
    places: list[str] | None = [cwd, *sys.path]
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        full = ".".join(parts[:depth])
        spec = PathFinder.find_spec(full, places)
        if spec is None and depth == 1:
            spec = BuiltinImporter.find_spec(full) or FrozenImporter.find_spec(full)
        if spec is None:
            return False
        if depth < len(parts):
            if spec.submodule_search_locations is None:
                return False
            places = list(spec.submodule_search_locations)
    return True


Changes = dict[str, str | None]


def changed(environ: Mapping[str, str], changes: Changes) -> dict[str, str]:
    """The environment with the changes; None takes a variable away."""
    both = {**environ, **changes}
    return {name: value for name, value in both.items() if value is not None}


class Program:
    """The target with all that the options say about running it."""

    def __init__(self, target: Target, options: Options) -> None:
        self.target = target
        self.args = options.args
        self._options = options
        self._start = logical_cwd()
        # Such variables are read when an interpreter, or the loader, starts.
        early = any(name.startswith(("PYTHON", "LD_")) for name in options.env)
        self.needs_exec = target.kind == "command" or early

        self._hidden: tuple[str, ...] = ()
        words = [*target.words, *options.args, *(str(value) for value in options.env.values())]
        self.names_path = any(_PATH.search(word) for word in words)
        """Some word looks like the path of a socket: what the engine may expect.
        A path that only the program knows is seen when the first worker binds it."""

    def cwd(self) -> str:
        """With its symbolic links, which are resolved by whoever enters it."""
        return os.path.join(self._start, self._options.cwd or "")

    def changes(self) -> Changes:
        """How a worker's environment differs from the master's."""
        return {**dict.fromkeys(NOT_FOR_WORKERS + self._hidden), **self._options.env}

    def hide(self, variables: tuple[str, ...]) -> None:
        """Take these out of the workers' environment, too."""
        self._hidden = variables

    @property
    def dumps(self) -> bool:
        """A hung worker is to write its stack when it gets SIGABRT (faulthandler)."""
        return bool(self._options.hang_timeout)

    def check(self) -> None:
        """Raises OptionError when FILE, MODULE or COMMAND is not there."""
        self.target.check(self.cwd(), changed(os.environ, self.changes()))

    def command(self, environ: Mapping[str, str]) -> list[str]:
        return self.target.command(self.cwd(), environ, self.args, self.dumps)
