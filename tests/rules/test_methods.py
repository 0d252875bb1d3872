"""Methods that the bridge treats in a way of its own."""

from __future__ import annotations

import pytest

from mcpbridge.rules.methods import (
    ASKED_ABILITY,
    Audience,
    shared_audience,
    stops_at_the_bridge,
)


@pytest.mark.parametrize("kind", ["tools", "prompts", "resources"])
def test_changed_lists_concern_every_session(kind: str) -> None:
    """A list of a shared child that changed, changed for all its sessions."""
    assert shared_audience(f"notifications/{kind}/list_changed") is Audience.EVERY_SESSION


@pytest.mark.parametrize(
    "method",
    [
        "notifications/message",
        "notifications/progress",
        "notifications/cancelled",
        "notifications/resources/updated",
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
        "notifications/Tools/list_changed",
        "notifications/unheard-of",
        "",
    ],
)
def test_what_one_session_caused_is_read_by_no_other(method: str) -> None:
    """A notification of a shared child that may be one session's goes to none."""
    assert shared_audience(method) is Audience.NOBODY


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        ("notifications/initialized", True),
        ("notifications/progress", True),
        ("notifications/roots/list_changed", True),
        ("notifications/cancelled", False),
        ("notifications/unheard-of", False),
        ("ping", False),
    ],
)
def test_what_concerns_one_client_stops_before_a_shared_child(method: str, stops: bool) -> None:
    """A client's handshake and its answers' progress are nothing to a child that all share."""
    assert stops_at_the_bridge(method) is stops


def test_each_question_needs_an_ability() -> None:
    """What a child may ask is asked only of clients that declared it."""
    assert ASKED_ABILITY == {
        "sampling/createMessage": "sampling",
        "elicitation/create": "elicitation",
        "roots/list": "roots",
    }
