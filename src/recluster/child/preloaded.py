"""The preload library in processes of our own: into the master, and out of the program's sight.

A worker that is forked has what the master has loaded, and a library that stands before libc's
accept must be there when a process begins. So the command line starts once more with it, under
the same pid, before anything is imported. Without it all goes on as ever: such workers are
given nothing. Imports no more than an interpreter has loaded.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

RING, SHIM = "RECLUSTER_RING", "RECLUSTER_SHIM"  # csrc/preload/wire.h
_BEFORE = "RECLUSTER_PRELOADED"  # what LD_PRELOAD was
_is_loaded = False
_found: str | None = None
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # recluster's own


def library_path() -> str:
    """Its path; "" if there is none. Looked for once."""
    global _found
    if _found is None:
        try:
            names = [name for name in os.listdir(_FOLDER) if name.startswith("_shim.")]
        except OSError:
            names = []
        paths = (os.path.join(_FOLDER, name) for name in names if name.endswith(".so"))
        _found = next(paths, "")
    return _found


def _is_off(words: list[str]) -> bool:
    given = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--handover"]
    asked = [word.partition("=")[2] for word in words if word.startswith("--handover=")]
    return "off" in (given + asked or [os.environ.get("RECLUSTER_HANDOVER", "")])


def begin(words: list[str]) -> None:
    """In what will be the master. Of a COMMAND each worker loads the library itself."""
    global _is_loaded
    before = os.environ.pop(_BEFORE, None)
    if before is not None:
        _is_loaded = True
        _set_preload(before)
        return
    library = library_path()
    if not library or not sys.orig_argv or not words or "--" in words or _is_off(words):
        return
    others = os.environ.get("LD_PRELOAD", "")
    os.environ[_BEFORE] = others
    _set_preload(f"{others} {library}".strip())
    try:
        os.execv(sys.executable, sys.orig_argv)
    except OSError:
        os.environ.pop(_BEFORE, None)
        _set_preload(others)


def again(environ: MutableMapping[str, str]) -> None:
    """For an exec of this program once more: it has the library from its beginning."""
    if _is_loaded:
        environ[_BEFORE] = others = environ.get("LD_PRELOAD", "")
        environ["LD_PRELOAD"] = f"{others} {library_path()}".strip()


def is_loaded() -> bool:
    """So a worker that is forked of this process has it."""
    return _is_loaded


def _set_preload(value: str) -> None:
    if value:
        os.environ["LD_PRELOAD"] = value
    else:
        os.environ.pop("LD_PRELOAD", None)


def add(told: dict[str, str]) -> None:
    """Before an exec of a worker that has it, as a forked one does. `told`: what it reads in
    the environment."""
    if told:
        os.environ.update(told)
        add_library(os.environ)


def add_library(environ: MutableMapping[str, str]) -> None:
    words = [library_path(), environ.get("LD_PRELOAD", "")]
    environ["LD_PRELOAD"] = " ".join(word for word in words if word)


def tell(told: dict[str, str]) -> None:
    """The library, and not the program. Where it is the door, or receives connections in
    dispatch, the program's children need it too."""
    if SHIM in told:
        return add(told)
    for name, value in told.items():
        os.putenv(name, value)
    return None


def hide(told: dict[str, str]) -> None:
    """From a FILE or MODULE."""
    if SHIM in told:
        return add(told)
    found = {RING: os.environ.pop(RING)} if RING in os.environ else told
    if found:
        tell(found)
        hide_library()
    return None


def hide_library() -> None:
    path, words = library_path(), os.environ.get("LD_PRELOAD", "").split(" ")
    if SHIM not in os.environ and path in words:
        _set_preload(" ".join(word for word in words if word != path))
