"""One import for all workers."""

from __future__ import annotations

from .. import checks
from .field import Field


class Preload:
    preload = Field(
        checks.preloaded,
        None,
        "none",
        "MODULES",
        "modules, with commas between them, that each generation imports once for all its workers "
        "(of a Python program); a respawned worker gets them as they were then; auto: those that a "
        "worker was seen to import, besides those that are named",
        brief="auto, or modules: imported once, for all workers",
    )
