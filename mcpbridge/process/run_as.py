"""Finds the user for the server, if it is not the bridge's: `--child-user`."""

from __future__ import annotations

import os

import msgspec

_MOST = 2**32 - 2
"""The highest user id; the one above means none."""


class ChildUser(msgspec.Struct, frozen=True):
    """The user of a child, looked up before anything is started."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """All groups, including the primary one."""
    name: str | None
    """The user's name; None for a number without one."""
    home: str

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a login, since the bridge's values name another user's files."""
        named = {"USER": self.name, "LOGNAME": self.name} if self.name is not None else {}
        return {"HOME": self.home, **named}


def child_user(text: str) -> ChildUser:
    """Parse `NAME` or `UID`, optionally followed by `:GROUP` or `:GID`.

    A number need not be known to the system: containers often have only a number. Its group then
    has the same number, and is never root's by default.

    Raises:
        ValueError: The user or group is unknown, or is root; the text completes a sentence that
            begins with the value.
    """
    try:
        import grp
        import pwd
    except ImportError:
        raise ValueError("cannot be used: this system has no users by number") from None
    name, colon, group = text.partition(":")
    try:
        uid = int(name) if _is_number(name) else pwd.getpwnam(name).pw_uid
        gid = uid
        if colon:
            gid = int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError("is not a user, or not a group, of this system") from None
    if uid == 0:
        raise ValueError("is root, as which the server must not run")
    if max(uid, gid) > _MOST:
        raise ValueError(f"is a number above {_MOST}")
    try:
        known = pwd.getpwuid(uid)
    except KeyError:
        return ChildUser(uid, gid, (gid,), None, "/")
    if not colon:
        gid = known.pw_gid
    groups = (gid,) if colon else tuple(os.getgrouplist(known.pw_name, gid))
    return ChildUser(uid, gid, groups, known.pw_name, known.pw_dir)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
