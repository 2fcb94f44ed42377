"""One option: its default, check, flag, environment variable and help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from .. import Options

T = TypeVar("T")


class Field(Generic[T]):
    """Named by the attribute of a group that it is; `check` turns a value, or its text,
    into what is kept, and so says its type. What is kept is in the Options' own
    dictionary, where Python looks first."""

    name: str

    def __init__(
        self,
        check: Callable[[object], T],
        default: Any,  # or a function of the environment
        shown: str,  # the default as the table says it
        metavar: str,  # "": a flag without a value, which says yes
        help: str,
        *,
        brief: str | None = None,  # for --help; without it the option is for experts
        environ: str | None = None,  # RECLUSTER_<NAME>, where that is not taken; "": none
        short: str | None = None,  # a flag of one letter
        repeated: bool = False,  # the flag may be given several times
        merged: bool = False,  # a mapping: of flag, environment and file all count
        live: bool = False,  # a reload that finds another value in a file takes it
        shared: str | None = None,  # a variable that others read, too
        bare: str | None = None,  # what the flag says without =VALUE, where it may be so
    ) -> None:
        self.check = check
        self.default = default
        self.shown = shown
        self.metavar = metavar
        self.help = help
        self.brief = brief
        self.environ = environ
        self.short = short
        self.repeated = repeated
        self.merged = merged
        self.live = live
        self.shared = shared
        self.bare = bare

    def __set_name__(self, group: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, options: None, kind: type) -> Field[T]: ...
    @overload
    def __get__(self, options: Options, kind: type) -> T: ...
    def __get__(self, options: Options | None, kind: type) -> Field[T] | T:
        if options is None:
            return self
        raise AttributeError(self.name)  # options that are not made yet

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def usage(self) -> str:
        if self.bare is not None:
            return f"{self.flag}[={self.metavar}]"
        return f"{self.flag} {self.metavar}".rstrip()

    @property
    def variable(self) -> str:
        """Empty where there is none."""
        return "RECLUSTER_" + self.name.upper() if self.environ is None else self.environ

    def said(self, environ: Mapping[str, str]) -> str | None:
        """The variable that has a value, if one has."""
        names = (self.variable, self.shared)
        return next((name for name in names if name and environ.get(name)), None)

    def initial(self, environ: Mapping[str, str]) -> Any:
        return self.default(environ) if callable(self.default) else self.default
