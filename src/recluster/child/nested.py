"""Reloaders that a server brings of its own: in each worker they would watch the same files,
and restart what the master supervises. Told to be off, by one line. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

# The word that turns a reloader on -> the servers that know it, and what to type instead.
FLAGS = {
    "--reload": ("uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "quart", "litestar"),
    "--auto-reload": ("sanic",),
    "--dev": ("sanic",),
    "--debug": ("flask", "quart", "sanic", "litestar"),
}
ANYWHERE = ("--reload", "--auto-reload")  # nobody means something else by it


def reloader_of(
    words: Sequence[str], args: Sequence[str], environ: Mapping[str, str]
) -> str | None:
    """The line, or None."""
    name = os.path.basename(words[0])
    said = [*words[1:], *args]
    off = "leave it out: workers would restart behind the master's back; recluster reloads"
    for word in said:
        if word in ANYWHERE or (word in FLAGS and name in FLAGS[word]):
            return f"{word} is {name}'s own reloader: {off}"
    django = name in ("manage.py", "django", "django-admin") and "runserver" in said
    if django and "--noreload" not in said:
        return "runserver brings a reloader of its own: add --noreload; recluster reloads"
    debug = environ.get("FLASK_DEBUG", "0").lower() not in ("", "0", "false", "no")
    if name == "flask" and debug and "run" in said and "--no-reload" not in said:
        return "FLASK_DEBUG turns Flask's own reloader on: add --no-reload; recluster reloads"
    return None
