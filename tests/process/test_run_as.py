"""The user of a server, as an operator writes it."""

from __future__ import annotations

import os
import pwd

import pytest

from mcpbridge.process.run_as import ChildUser, child_user

NOBODY = pwd.getpwnam("nobody")


def test_a_name_brings_its_groups_and_its_home() -> None:
    """As a log-in would; by number it is the same user."""
    groups = tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
    wanted = ChildUser(NOBODY.pw_uid, NOBODY.pw_gid, groups, "nobody", NOBODY.pw_dir)
    assert child_user("nobody") == child_user(str(NOBODY.pw_uid)) == wanted


def test_a_group_that_is_given_is_the_only_one() -> None:
    """By name or by number."""
    assert child_user("nobody:54321").groups == (54321,)
    assert child_user("nobody:54321").gid == 54321
    assert child_user(f"{NOBODY.pw_uid}:{pwd.getpwuid(0).pw_gid}").gid == 0


def test_a_number_need_not_be_known_and_is_never_in_roots_group() -> None:
    """Containers have no more than a number."""
    assert child_user("4000000001") == ChildUser(4000000001, 4000000001, (4000000001,), None, "/")
    assert child_user("4000000001:5").groups == (5,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("root", "is root"),
        ("0", "is root"),
        ("0:5", "is root"),
        ("", "is not a user"),
        ("no such user", "is not a user"),
        ("nobody:", "is not a user"),
        ("nobody:no such group", "is not a user"),
        ("-1", "is not a user"),
        ("4294967295", "above"),
        ("nobody:4294967295", "above"),
    ],
)
def test_who_cannot_be_is_refused(text: str, problem: str) -> None:
    """Root, and users that the system does not know."""
    with pytest.raises(ValueError, match=problem):
        child_user(text)
