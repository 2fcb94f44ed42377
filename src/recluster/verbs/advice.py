"""What was probably meant by a FILE that does not exist. Imported when that happens."""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

from ..base.nearest import nearest
from . import VERBS

APPLICATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(.*\))?")
ASGI = ("uvicorn", "granian", "hypercorn")
WSGI = ("gunicorn", "waitress", "granian")
SYNCHRONOUS = re.compile(r"\b(flask|django|bottle|wsgi|pyramid)\b", re.IGNORECASE)
READ_MOST = 1 << 16


def instead_of_file(words: list[str]) -> str | None:
    """In words, without the end of a sentence."""
    word, rest = words[0], " ".join(words)
    if APPLICATION.fullmatch(word):
        return f"it names an application, which a server runs: recluster -m {_server_for(rest)}"
    if word in VERBS or word in ("run", "dev"):
        return f"the verb stands first: recluster {word} ..."
    if os.sep not in word:
        if not word.endswith(".py") and module_exists(word):
            return f"did you forget -m? recluster -m {rest}"
        if shutil.which(word):
            return f"it is a command: recluster -- {rest}"
        verb = nearest(word, VERBS) if "." not in word else None
        if verb:
            return f"did you mean: recluster {verb}"
    folder, name = os.path.split(word)
    try:
        close = nearest(name, os.listdir(folder or "."))
    except OSError:
        return None
    return f"did you mean {os.path.join(folder, close)}?" if close else None


def _server_for(rest: str) -> str:
    name = rest.partition(":")[0]
    there = [one for one in _likely(name) if module_exists(one)]
    if there:
        return f"{there[0]} {rest}"
    wanted = _likely(name)[0]
    return f"{wanted} {rest} (python -m pip install {wanted})"


def _likely(module: str) -> tuple[str, ...]:
    try:
        with open(module.replace(".", os.sep) + ".py", errors="replace") as file:
            text = file.read(READ_MOST)
    except OSError:
        text = ""
    return WSGI + ASGI if SYNCHRONOUS.search(text) else ASGI + WSGI


def module_exists(name: str) -> bool:
    """Without importing: find_spec of importlib would import the parents."""
    places: list[str] | None = [os.getcwd(), *sys.path]
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        full = ".".join(parts[:depth])
        spec = PathFinder.find_spec(full, places)
        if spec is None and depth == 1:
            spec = BuiltinImporter.find_spec(full) or FrozenImporter.find_spec(full)
        if spec is None or (depth < len(parts) and spec.submodule_search_locations is None):
            return False
        places = list(spec.submodule_search_locations or ())
    return bool(spec and spec.loader)  # a folder alone is no program
