"""The nearest to a word that is none: "did you mean". Imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterable

ELSEWHERE = {
    "--reload": "code is swapped by `recluster reload`, or when a file changes: --watch",
    "--pid": "no pid file is needed: `recluster ls` finds masters, and --name names one",
    "--pidfile": "no pid file is needed: `recluster ls` finds masters, and --name names one",
    "--daemon": "it stays in the foreground, as systemd and containers want it",
    "--graceful-timeout": "did you mean --timeout, or --shutdown-timeout?",
    "--host": "that is the server's own: put it behind TARGET",
    "--port": "that is the server's own: put it behind TARGET",
    "--threads": "that is the server's own: put it behind TARGET",
    "--app": "the server is the program: recluster -m uvicorn main:app",
}
"""What users of other supervisors type."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_option(word: str, known: Iterable[str]) -> str:
    """One line for an option that there is not."""
    flag = word.partition("=")[0] if word.startswith("--") else word[:2]
    elsewhere = ELSEWHERE.get(flag)
    close = nearest(flag, [one for one in (*known, *ELSEWHERE) if one.startswith("--")])
    if elsewhere is None and close:
        elsewhere = f"did you mean {close}?"
        if close in ELSEWHERE:
            elsewhere += f" But {ELSEWHERE[close]}"
    more = f"; {elsewhere}" if elsewhere else " (see --help)"
    if not word.startswith("-"):
        return f"{word!r} is one word too many"
    return f"there is no option {flag}{more}"
