"""The name of a master: `NAME.sock` in the directory of the sockets, a symbolic link to
its own.

Invariant: of the masters that live no two have one name in a directory, for a link
appears in one step, never replaces another, and only that of a dead one is removed.
"""

from __future__ import annotations

import contextlib
import os
import re

from ..base.socketfile import Refused, remove_dead
from ..child.launch import Target
from .places import SUFFIX

TRIES = 1000


def name_of(target: Target) -> str:
    """What a program is called where nobody says: server.py is `server`."""
    word = os.path.basename(os.path.abspath(target.words[0]))
    if target.kind == "module":
        word = target.words[0]
    elif target.kind == "file" and word.endswith((".py", ".pyc", ".pyz")):
        word = word.rpartition(".")[0]
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", word).lstrip(".-")[:48]
    return f"program-{word}".rstrip("-") if not word or word.isdecimal() else word


class Name:
    """`text` is ours until `give_back`."""

    def __init__(self, text: str, link: str, target: str) -> None:
        self.text = text
        self._link = link
        self._target = target

    def carried(self) -> tuple[str, str, str]:
        """What makes it once more, in the master that takes this one's place."""
        return self.text, self._link, self._target

    def give_back(self) -> None:
        with contextlib.suppress(OSError):
            if os.readlink(self._link) == self._target:
                os.unlink(self._link)


def claim(directory: str, wanted: str, target: str) -> Name:
    """The name, for whoever listens at `target`; made unique by a number where it is
    another master's. Raises OSError, or Refused."""
    if os.path.dirname(target) == directory:
        target = os.path.basename(target)
    for number in range(1, TRIES):
        text = wanted if number == 1 else f"{wanted}-{number}"
        link = os.path.join(directory, text + SUFFIX)
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                os.symlink(target, link)
                return Name(text, link, target)
            if not remove_dead(link):
                break
    raise Refused(f"all names like {wanted} are taken")
