"""What a fresh interpreter has, so that a forked worker can have it too.

Owns the difference between this process and one that `python FILE` would start: modules
and paths that only the master needed, and what the import system remembers of files that
may have been replaced since. Imports nothing but what an interpreter has loaded when it
starts, for a program may have a module of any other name.
"""

from __future__ import annotations

import os
import sys
import zipimport
from _frozen_importlib import BuiltinImporter, FrozenImporter
from _frozen_importlib_external import FileFinder, PathFinder

TYPE_CHECKING = False  # as mypy sees it; module typing is none of a fresh interpreter's
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OURS = __name__.partition(".")[0]
# Finders that site-packages may bring and that know of no program's file.
HARMLESS = frozenset({"_distutils_hack"})
CUSTOM = ("sitecustomize", "usercustomize")

# Whoever comes first decides: site is the last that an interpreter loads by itself.
_names = list(sys.modules)
_bare = _names.index("site" if "site" in _names else "zipimport") + 1
FRESH = frozenset(_names[:_bare])

_begun: list[bool] = []
_folders: dict[str, Any] = {}  # of site-packages, and their .pth files, as they were then
_pth: dict[str, Any] = {}


def has_own_path() -> bool:
    """Whether python puts the folder of what it runs in front of sys.path (not -P, -I)."""
    return not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated


def begin() -> None:
    """In the master, before it imports anything more: the folder it was started in, which
    may be the program's, is none of its business. A second call does nothing."""
    if _begun:
        return
    _begun.append(True)
    if has_own_path():
        del sys.path[0]
    _remember_pth()


def _known(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _site_folders() -> Iterator[str]:
    site: Any = sys.modules.get("site")
    if site is not None:
        yield from site.getsitepackages()
        if site.ENABLE_USER_SITE:
            yield site.getusersitepackages()


def _pth_files(folder: str) -> list[str]:
    """Those that add to sys.path, or run code, when an interpreter starts."""
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if name[-4:] == ".pth"]
    except OSError:
        return []


def _remember_pth() -> None:
    for folder in _site_folders():
        _folders[folder] = _known(folder)
        for path in _pth_files(folder):
            _pth[path] = _known(path)


def _pth_changed() -> bool:
    for folder, known in _folders.items():
        if _known(folder) != known and not _pth.keys() >= set(_pth_files(folder)):
            return True
    return any(_known(path) != known for path, known in _pth.items())


def is_particular() -> bool:
    """Only a fresh interpreter has it right: a finder knows where packages were when the
    master started (an editable install), sitecustomize has done who knows what, or an
    interpreter would find other .pth files now."""
    finders: tuple[object, ...] = (BuiltinImporter, FrozenImporter, PathFinder)
    theirs = [one for one in sys.meta_path if one not in finders]
    return (
        any(type(one).__module__ not in HARMLESS for one in theirs)
        or len(sys.path_hooks) != 2
        or any(name in sys.modules for name in CUSTOM)
        or _pth_changed()
    )


def forget() -> None:
    """What the import system knows of files will be old in a worker. In the master, which
    imports nothing more then: what it writes here no worker needs to copy."""
    for finder in sys.path_importer_cache.values():
        if isinstance(finder, FileFinder):
            finder.invalidate_caches()
    forget_archives()


def forget_archives() -> None:
    """In the worker once more, if the master has imported something after all: a folder's
    finder sees that the folder has changed, an archive's does not."""
    for path, finder in list(sys.path_importer_cache.items()):
        if not isinstance(finder, FileFinder):
            del sys.path_importer_cache[path]
    if archives := zipimport._zip_directory_cache:  # type: ignore[attr-defined]
        archives.clear()


def make_room(first: str | None) -> None:
    """`first` is the program's own folder, the new sys.path[0]. Where it, or PYTHONPATH,
    has a module of a name that the master (or recluster in this process) has loaded, the
    program gets that one."""
    if first is not None:
        sys.path.insert(0, first)
    library = os.path.dirname(os.__file__)
    places = sys.path[: sys.path.index(library)] if library in sys.path else sys.path
    loaded = {name for name in _later() if "." not in name}
    if any(_is_in(place, name) for place in places for name in _likely(place, loaded)):
        for name in _later():
            del sys.modules[name]


def _later() -> list[str]:
    """Modules that a fresh interpreter does not have, but ours."""
    kept = (OURS, "__main__")
    return [name for name in sys.modules if name not in FRESH and _top(name) not in kept]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _likely(place: str, names: set[str]) -> set[str]:
    """Those of the names that a folder has a file for; of an archive, all."""
    try:
        return names & {entry.partition(".")[0] for entry in os.listdir(place or ".")}
    except NotADirectoryError:
        return names
    except OSError:
        return set()


def _is_in(place: str, name: str) -> bool:
    if name in sys.builtin_module_names or FrozenImporter.find_spec(name):
        return False
    spec = PathFinder.find_spec(name, [place])
    return spec is not None and spec.loader is not None  # a folder alone hides no module
