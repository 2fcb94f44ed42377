"""What the names of users and groups mean here, and umasks: values of options.

Each check raises ValueError saying what it must be. Looks names up, so not pure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """`group` is None where only a number was given, and no account has it."""

    name: str
    uid: int
    group: int | None
    groups: tuple[int, ...]
    home: str | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Group:
    name: str
    gid: int

    def __str__(self) -> str:
        return self.name


def account(value: object) -> Account | None:
    """A name or a number."""
    if value is None or isinstance(value, Account):
        return value
    import pwd  # not for a master that does without: its forked workers would have it

    text = str(value)
    try:
        found = pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        if text.isdigit() and int(text) < 2**32 - 1:
            return Account(text, int(text), None, (), None)
        raise ValueError("is not the name of a user here") from None
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
    return Account(found.pw_name, found.pw_uid, found.pw_gid, groups, found.pw_dir)


def group(value: object) -> Group | None:
    """A name or a number."""
    if value is None or isinstance(value, Group):
        return value
    import grp

    text = str(value)
    if text.isdigit() and int(text) < 2**32 - 1:
        return Group(text, int(text))
    try:
        return Group(text, grp.getgrnam(text).gr_gid)
    except KeyError:
        raise ValueError("is not the name of a group here") from None


def umask(value: object) -> int | None:
    """A number, or its octal digits."""
    if value is None:
        return None
    mask = value
    if isinstance(value, str):
        mask = int(value, 8) if value and set(value) <= set("01234567") else None
    if isinstance(mask, bool) or not isinstance(mask, int) or not 0 <= mask <= 0o777:
        raise ValueError("must be octal digits, 000 to 777")
    return mask
