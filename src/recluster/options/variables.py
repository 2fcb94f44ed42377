"""RECLUSTER_ variables that name no option: a misspelt one would be ignored in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .fields import FIELDS

OURS = frozenset(
    (
        "RECLUSTER_CONFIG",
        "RECLUSTER_ENV",  # development
        "RECLUSTER_RUN_DIRECTORY",
        "RECLUSTER_GENERATION",  # a worker's, in which a cluster may run
        "RECLUSTER_SHIM",
        "RECLUSTER_SANITIZE",  # the build's
    )
)
"""Those that are read, and are no option's."""


def strangers(environ: Mapping[str, str]) -> Iterator[str]:
    """A line about each. A program may have such of its own, so nothing is refused."""
    known = OURS | {one.variable for one in FIELDS}
    for name in sorted(environ):
        if not name.startswith("RECLUSTER_") or name in known:
            continue
        from ..base.nearest import nearest

        close = nearest(name, known)
        yield f"{name} names no option" + (f"; did you mean {close}?" if close else "")
