"""Where a cluster's options come from, and come from again at a reload.

Owns what was given, and the files: a reload reads them anew, as a whole or not at all. What
can change then (`live`) changes in the options that everybody has; a reload that fails takes
it back, so that the old generation goes on as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..child.launch import NOT_FOR_WORKERS, Changes, Target
from ..options import Options, configfile, envfile
from ..options.fields import FIELDS

LIVE = tuple(one.name for one in FIELDS if one.live)
OTHERS = tuple(one.name for one in FIELDS if not one.live)


class Read:
    """What was found at one look."""

    def __init__(self, options: Options, target: Target, filed: Mapping[str, str | None]) -> None:
        self.options = options
        self.target = target
        self.filed = filed  # of the env files


class Settings:
    """`options` are the ones that count; `target` is what was said beside them. Raises
    OptionError."""

    def __init__(
        self,
        target: object,
        module: str | None,
        config: str | os.PathLike[str] | None,
        given: Mapping[str, Any],
    ) -> None:
        self.path = None if config is None else os.path.abspath(config)
        self.named = "" if config is None else os.fspath(config)
        self._given = given
        self._said = target, module
        now = self._read()
        self.options, self.target = now.options, now.target
        self.filed: Changes = dict(now.filed)
        # What could be read only once has been.
        self._given = {
            name: getattr(self.options, name) if hasattr(value, "__next__") else value
            for name, value in given.items()
        }
        self._good = self._now()  # what the generation that serves was started with
        self._last = 0  # the reload that was begun last

    def _read(self) -> Read:
        target, module = self._said
        config = configfile.NOTHING
        if self.path is not None:
            config = configfile.read(self.path, self.named)
        values = config.values
        if target is None and module is None and config.target is not None:
            kind, name = config.target
            target, module = (None, name) if kind == "module" else (name, None)
        elif config.target is not None:  # the file's arguments are its target's
            values = {name: value for name, value in values.items() if name != "args"}
        options = Options.make(self._given, None, values)
        filed = envfile.read(options.env_file)
        for name in NOT_FOR_WORKERS:
            filed.pop(name, None)
        return Read(options, Target.of(target, module), filed)

    @property
    def has_files(self) -> bool:
        return self.path is not None or bool(self.options.env_file)

    # ---- a reload ----------------------------------------------------------------

    def again(self) -> Read | None:
        """What the files say now; None: there are none. Raises OptionError."""
        return self._read() if self.has_files else None

    def take(self, now: Read) -> None:
        """What can change has changed."""
        self.options.adopt(now.options, LIVE)
        self.filed.clear()
        self.filed.update(now.filed)

    def expect(self, number: int) -> None:
        """The reload of that number has what was taken."""
        self._last = number

    def over(self, number: int, ok: bool) -> tuple[Options, Options] | None:
        """(what was good until now, what was tried), of the last reload that took something.
        One that failed has changed nothing."""
        if number != self._last:
            return None
        good, tried, self._last = self._good, self._now(), 0
        if ok:
            self._good = tried
        else:
            self.take(good)
        return good.options, tried.options

    def _now(self) -> Read:
        return Read(Options(vars(self.options), self.options.sources), self.target, {**self.filed})

    def differences(self, now: Read) -> tuple[list[str], list[str]]:
        """Of the options that count: what changes, and what a restart would change."""
        changes = [self._change(name, now) for name in LIVE if self._differs(name, now)]
        files = _names_that_differ(self.filed, now.filed)
        changes += [f"env files ({files})"] if files else []
        pending = [self._change(name, now) for name in OTHERS if self._differs(name, now)]
        if now.target != self.target:
            pending.append(f"the program ({' '.join(now.target.words)})")
        return changes, pending

    def _differs(self, name: str, now: Read) -> bool:
        return bool(getattr(self.options, name) != getattr(now.options, name))

    def _change(self, name: str, now: Read) -> str:
        before, after = getattr(self.options, name), getattr(now.options, name)
        if name == "env":  # whose values may be secrets
            return f"env ({_names_that_differ(before, after)})"
        return f"{name} {shown(before)} -> {shown(after)}"


def _names_that_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    names = sorted({*before, *after})
    return ", ".join(name for name in names if before.get(name) != after.get(name))


def shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={shown(one)}" for key, one in value.items()) or "none"
    return str(value)
