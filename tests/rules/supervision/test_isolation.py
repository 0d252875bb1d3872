"""Which child a session gets, and how many spare ones are kept."""

from __future__ import annotations

import pytest

from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.supervision.isolation import (
    Isolation,
    needs_own_child,
    spares_text,
    spares_wanted,
)


@pytest.mark.parametrize(
    ("isolation", "silent", "asked"),
    [
        (Isolation.AUTO, False, True),
        (Isolation.SHARED, False, False),
        (Isolation.SESSION, True, True),
    ],
)
def test_a_client_that_can_be_asked_gets_its_own_child(
    isolation: Isolation, silent: bool, asked: bool
) -> None:
    """By default only clients that a child may ask get a separate one; the operator decides."""
    assert needs_own_child(isolation, ClientProfile(b"{}", "", frozenset())) is silent
    for ability in ("roots", "sampling", "elicitation"):
        client_profile = ClientProfile(b"{}", "", frozenset((ability,)))
        assert needs_own_child(isolation, client_profile) is asked


def test_isolation_is_spelled_as_on_the_command_line() -> None:
    """The words of `--isolation` are the values."""
    assert [isolation.value for isolation in Isolation] == ["auto", "shared", "session"]


@pytest.mark.parametrize(
    ("spares", "start_s", "wanted"),
    [
        ("auto", None, 0),
        ("auto", 0.0, 0),
        ("auto", 1.0, 0),
        ("auto", 1.01, 1),
        ("auto", 60.0, 1),
        ("0", 60.0, 0),
        ("3", None, 3),
        ("3", 0.1, 3),
    ],
)
def test_a_spare_child_is_kept_where_starting_is_slow(
    spares: str, start_s: float | None, wanted: int
) -> None:
    """Left to itself the bridge keeps one spare for a slow child; a number is a number."""
    assert spares_wanted(spares, start_s) == wanted


def test_spares_that_are_no_number_are_an_error() -> None:
    """Another word than `auto` is not a number of spares."""
    with pytest.raises(ValueError, match="many"):
        spares_wanted("many", None)


@pytest.mark.parametrize("text", ["auto", "0", "3", "16"])
def test_spares_are_auto_or_a_number(text: str) -> None:
    """What `--spares` may be is taken as it is, and is understood."""
    assert spares_text(text) == text
    assert spares_wanted(text, None) >= 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "AUTO", "\u0663", "\u00b2"])
def test_other_spares_are_refused(text: str) -> None:
    """Anything else is refused with a text that says what would be right."""
    with pytest.raises(ValueError, match="is neither auto nor a number from 0 on"):
        spares_text(text)


def test_roots_alone_need_no_own_child_if_the_bridge_answers_for_them() -> None:
    """A client that can be asked for anything else still has its own."""
    for abilities, own in (("roots",), False), (("roots", "sampling"), True), ((), False):
        profile = ClientProfile(b"{}", "", frozenset(abilities))
        assert needs_own_child(Isolation.AUTO, profile, answers_roots=True) is own
    assert needs_own_child(
        Isolation.SESSION, ClientProfile(b"{}", "", frozenset()), answers_roots=True
    )
