"""The configuration file: `recluster.toml`, or [tool.recluster] in `pyproject.toml`.

Owns where a file is looked for, what its keys may be, and the line where each stands. What a
value may be, `fields` says.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checks import OptionError
from .fields import FIELDS
from .textfile import read_text

OWN = "recluster.toml"
SHARED = "pyproject.toml"
TABLE = "tool.recluster"
TARGETS = ("target", "module", "command")


@dataclass(frozen=True)
class Config:
    """`values`: of each option the value, and where it stands ("recluster.toml:3")."""

    path: str
    values: Mapping[str, tuple[Any, str]]
    target: tuple[str, Any] | None  # one of TARGETS, and its value


NOTHING = Config("", {}, None)


def read(path: str, shown: str = "") -> Config:
    """`shown`: what errors call it. Raises OptionError with the path, the line and the key."""
    text = read_text(path, shown=shown)
    shared, path = os.path.basename(path) == SHARED, shown or path
    table: Any = _parsed(text, path)
    for part in TABLE.split(".") if shared else ():
        table = table.get(part, {})
        if not isinstance(table, dict):
            raise OptionError(f"{path}: [{TABLE}] must be a table")
    return _checked(table, path, text, TABLE if shared else "")


def _parsed(text: str, path: str) -> dict[str, Any]:
    loads = _loads(path)
    try:
        found: dict[str, Any] = loads(text)
    except ValueError as error:
        told = str(error)
        place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", told)
        if place is None:
            raise OptionError(f"{path}: {told}") from None
        line = place[1] or len(text.splitlines())
        raise OptionError(f"{path}:{line}: {told[: place.start()]}") from None
    return found


def _loads(path: str) -> Any:
    """Imported when there is something to read."""
    from importlib import import_module

    for name in ("tomllib", "tomli"):
        with contextlib.suppress(ImportError):
            return import_module(name).loads
    raise OptionError(
        f"{path}: this Python (3.10) reads no TOML by itself: pip install tomli, or recluster[toml]"
    )


def _checked(table: dict[str, Any], path: str, text: str, section: str) -> Config:
    known = {one.name for one in FIELDS}
    values: dict[str, tuple[Any, str]] = {}
    targets: list[tuple[str, Any]] = []
    for key, value in table.items():
        line = line_of(text, section, key)
        where = f"{path}:{line}" if line else path
        name = key.replace("-", "_")
        if name in TARGETS:
            targets.append((name, _target(name, value, where)))
        elif name == "tool" and not section:
            raise OptionError(
                f"{where}: options stand at the top of {OWN}; [{TABLE}] is for {SHARED}"
            )
        elif name not in known:
            from ..base.nearest import nearest

            close = nearest(name, [*known, *TARGETS])
            more = f"; did you mean {close}?" if close else ""
            raise OptionError(f"{where}: {key}: there is no such option{more}")
        elif name in values:
            raise OptionError(f"{where}: {key}: is there twice")
        else:
            values[name] = value, where
    if len(targets) > 1:
        raise OptionError(f"{path}: give one of {', '.join(TARGETS)}, not several")
    return Config(path, values, targets[0] if targets else None)


def _target(name: str, value: Any, where: str) -> Any:
    words = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    if name == "command" and not words:
        raise OptionError(f"{where}: command: {value!r} must be a list of words")
    if name != "command" and (not isinstance(value, str) or not value):
        raise OptionError(f"{where}: {name}: {value!r} must be a string")
    return value


def line_of(text: str, section: str, key: str) -> int | None:
    """Where the key stands, or the header of its table."""
    word = re.escape(key)
    assigned = re.compile(rf"""\s*(["']?){word}\1\s*[=.]""")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]", line)
        if header:
            current = re.sub(r"[\s\"']", "", header[1])
            if f"{current}.".startswith(f"{section}.{key}.".lstrip(".")):
                return number
        elif current == section and assigned.match(line):
            return number
    return None


def lookup(directory: str = ".") -> tuple[str | None, str | None]:
    """The file that is there to be used without being named, or why the one that is there
    is not. It has our name, or a table of ours; and it is of somebody who could as well
    have changed what runs."""
    for name in (OWN, SHARED):
        path = os.path.normpath(os.path.join(directory, name))
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                found = os.stat(path)
        except OSError:
            continue
        if name == SHARED and not _has_table(path):
            continue
        if not _is_trusted(found, os.stat(directory)):
            return None, f"{path} belongs to somebody else: it is not used (-c {path} would)"
        return path, None
    return None, None


def _has_table(path: str) -> bool:
    try:
        return re.search(r"^\s*\[+\s*tool\s*\.\s*recluster\b", read_text(path), re.M) is not None
    except OptionError:  # whatever it is, it is not ours
        return False


def _is_trusted(file: os.stat_result, directory: os.stat_result) -> bool:
    if file.st_mode & stat.S_IWOTH:
        return False
    ours = file.st_uid in (0, os.geteuid())
    closed = not directory.st_mode & stat.S_IWOTH
    return ours or (closed and file.st_uid == directory.st_uid)
