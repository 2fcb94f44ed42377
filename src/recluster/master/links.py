"""Links that led to the working directory when the cluster began.

A service manager (systemd, supervisord) enters `/srv/current` and tells nobody by which name:
the process has `/srv/releases/41`, and a reload runs that release again. Owns whether this
is so: only looked at (names of folders, readlink), never followed by anybody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

LEVELS = 4  # of folders above, in which links are looked for
NAMES_MOST = 2000  # in one of them


def _links_in(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= NAMES_MOST:
                    return
                if entry.is_symlink():
                    yield entry.path
    except OSError:
        return


def _upwards(directory: str) -> Iterator[str]:
    """The directory and those above, without the root."""
    for _ in range(LEVELS):
        if os.path.dirname(directory) == directory:
            return
        yield directory
        directory = os.path.dirname(directory)


class Links:
    """`directory`: where workers start, as the cluster names it."""

    def __init__(self, directory: str) -> None:
        self._leads: dict[str, str] = {}
        directory = os.path.normpath(directory)
        if os.path.realpath(directory) != directory:
            return  # by a link of its own, which is resolved at each spawn
        above = list(_upwards(directory))
        for folder in dict.fromkeys(map(os.path.dirname, above)):
            for link in _links_in(folder):
                leads = os.path.realpath(link)
                if leads in above:
                    self._leads[link] = leads

    def warning(self) -> str | None:
        """What to say at a reload, when one of them leads elsewhere by now."""
        for link, led in self._leads.items():
            leads = os.path.realpath(link)
            if leads != led:
                return (
                    f"workers start in {led}, as this master did; {link}, which led there, now "
                    f"leads to {leads}: for a reload to follow it, give --cwd {link}"
                )
        return None
