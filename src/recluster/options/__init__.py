"""The options of one cluster: validated, each with where it was said.

What options there are, `fields` says; what a value may be, `checks`; which go together, `rules`;
`configfile` and `envfile` read them. May import events (which hooks name) and base.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from .checks import OptionError, refused
from .fields import FIELDS, Fields
from .rules import RULES

__all__ = ["FIELDS", "GIVEN", "Options"]

GIVEN = "command line"


class Options(Fields):
    """Make one with `Options.make`. It changes only in `adopt`, at a reload."""

    sources: dict[str, str]
    """Where it was said: GIVEN, a variable, `recluster.toml:3`. Of a default there is none."""

    def __init__(self, values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
        vars(self).update(values, sources=dict(sources))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name}: options do not change")

    @property
    def given(self) -> frozenset[str]:
        """Those that are not the defaults' doing."""
        return frozenset(self.sources)

    def adopt(self, others: Options, names: Iterable[str]) -> None:
        """Take these values over: whoever has these options has them from now on."""
        for name in names:
            vars(self)[name] = getattr(others, name)
            self.sources.pop(name, None)
            if name in others.sources:
                self.sources[name] = others.sources[name]

    @classmethod
    def make(
        cls,
        given: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        config: Mapping[str, tuple[Any, str]] | None = None,
    ) -> Options:
        """From what was given, else RECLUSTER_*, else a configuration file's values (each
        with where it stands), else the defaults.

        Raises OptionError naming the option (or the variable, or the line) and the value.
        """
        given = {} if given is None else given
        environ = os.environ if environ is None else environ
        config = {} if config is None else config
        known = {one.name for one in FIELDS}
        for name in given:
            if name not in known:
                raise OptionError(f"{name}: there is no such option")
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for one in FIELDS:
            layers: list[tuple[Any, str, str]] = []  # value, source, what an error names
            if one.name in given:
                layers.append((given[one.name], GIVEN, one.name))
            if variable := one.said(environ):
                text = environ[variable]
                layers.append((text, variable, variable))
            if one.name in config:
                value, where = config[one.name]
                layers.append((value, where, f"{where}: {one.name}"))
            if layers:
                said = [source for _, source, _ in layers]
                sources[one.name] = ", ".join(said) if one.merged else said[0]
            else:
                layers = [(one.initial(environ), "", one.name)]
            for value, _, blamed in layers if one.merged else layers[:1]:
                try:
                    kept = one.check(value)
                except (ValueError, TypeError) as error:
                    raise refused(blamed, value, error) from None
                values[one.name] = {**kept, **values.get(one.name, {})} if one.merged else kept
        if "shutdown_timeout" not in sources:
            values["shutdown_timeout"] = min(values["shutdown_timeout"], values["timeout"])
        made = cls(values, sources)
        for rule in RULES:
            if why := rule(made):
                blamed = why.partition(":")[0]
                source = sources.get(blamed)
                in_file = blamed in config and source == config[blamed][1]
                raise OptionError(f"{source}: {why}" if in_file else why)
        return made
