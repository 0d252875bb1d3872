"""Another user for the server than the bridge's own: `--child-user`."""

from __future__ import annotations

import dataclasses
import os

_MOST = 2**32 - 2
"""The highest number of a user; the one above means none."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChildUser:
    """Who a child is to be, found out before anything is started."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """Further groups, the first one among them."""
    name: str | None
    """As the system knows it; None for a number that it does not know."""
    home: str

    @property
    def variables(self) -> dict[str, str]:
        """What a log-in would set: what stands there is the bridge's user's, and not readable."""
        named = {"USER": self.name, "LOGNAME": self.name} if self.name is not None else {}
        return {"HOME": self.home, **named}


def child_user(text: str) -> ChildUser:
    """`NAME`, `UID`, and either with `:GROUP` or `:GID`.

    A number need not be known to the system: containers often have no more than a number. Its
    group has the same number then, and never root's by default.

    Raises:
        ValueError: There is no such user or group, or it is root; the text completes a sentence
            that begins with the value.
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
        raise ValueError("is no user, or no group, of this system") from None
    if uid == 0:
        raise ValueError("is root, whom the server is not to be")
    if max(uid, gid) > _MOST:
        raise ValueError(f"is a number beyond {_MOST}")
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
