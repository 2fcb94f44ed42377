"""Imports with an eye on each: in which order they begin, and what a module leaves.

Owns the stack of modules whose code runs. A thread, a socket or a handler that is new between
two looks is the doing of the one on top; looks are at each begin and end, of loading a library
(dlopen runs its constructors) as well as of running a module's code. Those below on the stack
import the culprit, so they cannot be preloaded either.

A module that is left to the workers raises `LeftOut` when it is imported here. Whoever imports
it has then run a part of its code, and a fresh process has to begin without it, too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.machinery import (
    ExtensionFileLoader,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from typing import Any

from .leavings import Leavings, cheap, signal_masks

WATCHED = (SourceFileLoader, SourcelessFileLoader, ExtensionFileLoader)
OF_WORKERS = frozenset({"WORKER_ID", "NODE_CHANNEL_FD"})
OURS = "recluster.worker"  # reads them again in each worker


class LeftOut(BaseException):
    """No Exception: `try: import x / except ImportError` is not to go on without it."""


class _Environ(os._Environ):  # type: ignore[type-arg]
    """Tells who looks up what differs between workers; to go through all is no such look."""

    _asked: Callable[[str], None]

    def __getitem__(self, key: Any) -> Any:
        if key in OF_WORKERS:
            self._asked(key)
        return super().__getitem__(key)


class Audit:
    """`left`: modules that are not to be imported. A finder, the first."""

    def __init__(self, left: set[str]) -> None:
        self.order: list[str] = []  # what was imported, as it began
        self.blamed: dict[str, list[str]] = {}  # the culprits: module -> what it does
        self.also: set[str] = set()  # those that import one of them
        self._left = left
        self._stack: list[str] = []
        self._over = False
        self._environ: Any = os.environ  # whatever a module may put in its place
        self._known = Leavings()
        self._cheap = cheap()
        self._masks = signal_masks()

    def __enter__(self) -> Audit:
        sys.meta_path.insert(0, self)
        self._environ._asked = self._asked
        self._environ.__class__ = _Environ
        return self

    def __exit__(self, *unused: object) -> None:
        self._look("", thoroughly=True)
        self._over = True  # a lazy loader may come to us later
        self._environ.__class__ = os._Environ
        del self._environ._asked
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)

    def is_left(self, name: str) -> bool:
        """It, or a package that it is in."""
        while name:
            if name in self._left:
                return True
            name = name.rpartition(".")[0]
        return False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if self.is_left(name):
            self.also.update(self._stack)
            raise LeftOut(name)
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec is not None:
                self.order.append(name)
                if isinstance(spec.loader, WATCHED):
                    self._watch(spec.loader, name)
                return spec
        return None

    def _watch(self, loader: Any, name: str) -> None:
        """For once: a loader is one module's."""
        compiled = isinstance(loader, ExtensionFileLoader)
        for method in ("create_module", "exec_module") if compiled else ("exec_module",):
            setattr(loader, method, self._watched(loader, method, name, compiled))

    def _watched(self, loader: Any, method: str, name: str, compiled: bool) -> Callable[[Any], Any]:
        plain = getattr(loader, method)

        def call(argument: Any) -> Any:
            with contextlib.suppress(AttributeError):
                delattr(loader, method)
            if self._over:
                return plain(argument)
            self._look(self._stack[-1] if self._stack else "")
            self._stack.append(name)
            try:
                return plain(argument)
            finally:
                self._look(name, thoroughly=compiled and self._masks != signal_masks())
                self._stack.pop()

        return call

    def _look(self, who: str, thoroughly: bool = False) -> None:
        now = cheap()
        if now == self._cheap and not thoroughly:
            return
        leavings = Leavings()
        if done := leavings.added_to(self._known, who):
            self._blame(who, done)
        self._known, self._cheap, self._masks = leavings, now, leavings.signals

    def _asked(self, name: str) -> None:
        who = self._stack[-1] if self._stack else ""
        if who and who != OURS:
            self._blame(who, [f"reads {name}"])

    def _blame(self, who: str, done: list[str]) -> None:
        known = self.blamed.setdefault(who, [])
        known += [one for one in done if one not in known]
        self.also.update(self._stack)
        self.also.discard(who)
