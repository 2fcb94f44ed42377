"""For who works on the code."""

from __future__ import annotations

from .. import checks
from .field import Field


class Develop:
    watch = Field(
        checks.watched,
        None,
        "no",
        "PATH",
        "reload when a file below PATH changes, the working directory where no PATH is given "
        "(needs watchfiles: `recluster[watch]`); may be given several times; no: not even in "
        "`recluster dev`",
        repeated=True,
        bare=".",
    )

    watch_include = Field(
        checks.patterns,
        None,
        "`*.py`; of a COMMAND: sources",
        "GLOB",
        "which files count, by name or path; may be given several times",
        repeated=True,
    )

    watch_exclude = Field(
        checks.patterns,
        None,
        "none",
        "GLOB",
        "which do not, or which folders (.git, __pycache__, node_modules and their like never "
        "do); may be given several times",
        repeated=True,
    )
