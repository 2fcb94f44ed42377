"""`recluster check --print`: the options as a recluster.toml, each with where it is from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..child.launch import Target
from ..master.settings import shown
from ..options import Options
from ..options.fields import GROUPS
from ..options.fields.field import Field

BARE = re.compile(r"[A-Za-z0-9_-]+")


def text(options: Options, target: Target) -> str:
    """What is a default is a comment."""
    lines = [_target(target)]
    for title, fields in GROUPS.items():
        lines += ["", f"# {title}"]
        for one in fields:
            value = getattr(options, one.name)
            said = f"{one.name} = {toml(_nothing(one) if value is None else value)}"
            source = options.sources.get(one.name)
            lines.append(f"{said}  # {source}" if source else f"# {said}")
    return "\n".join(lines)


def _target(target: Target) -> str:
    if target.kind == "command":
        return f"command = {toml(target.words)}"
    return f"{'module' if target.kind == 'module' else 'target'} = {toml(target.words[0])}"


def _nothing(one: Field[Any]) -> str:
    """The word for it. (Of a value that cannot be said, only a default is nothing.)"""
    try:
        one.check("none")
        return "none"
    except ValueError:
        return "timeout" if one.name == "drain_quiet" else "none"


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value).removesuffix(".0")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {toml(one)}' for key, one in value.items())}}}"
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(shown(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: object) -> str:
    return str(key) if BARE.fullmatch(str(key)) else json.dumps(str(key))
