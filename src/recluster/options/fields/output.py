"""What is said, where and how."""

from __future__ import annotations

from ...base.levels import LEVELS
from .. import checks
from .field import Field

FORMATS = ("auto", "text", "short", "json", "journal")


class Output:
    log_format = Field(
        checks.one_of(*FORMATS),
        "auto",
        "auto",
        "FORMAT",
        "what a line of the log looks like: text (time, level, words), short (the time of day, the "
        "words; of `recluster dev`), json (an object, with the "
        "fields of the event), journal (a priority before it, for journald), auto (journal where "
        "JOURNAL_STREAM names standard error, text in colour on a terminal, else text)",
    )

    log_level = Field(
        checks.one_of(*LEVELS),
        "info",
        "info",
        "LEVEL",
        "the least that is logged: debug (each start of a worker too), info, warning (trouble "
        "that passes), error (what somebody must mend)",
        live=True,
    )

    prefix = Field(
        checks.truth,
        False,
        "no",
        "YES",
        "what workers write to standard output and error is read by the master and told line by "
        "line with the slot before it, or in JSON as `slot`; it is the log file's too, and "
        "`recluster logs` shows it",
        bare="yes",
    )

    log_file = Field(
        checks.file_path,
        None,
        "standard error",
        "PATH",
        "append the log to this file, which USR1 has opened anew; logrotate's copytruncate "
        "works too",
    )
