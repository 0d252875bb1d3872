"""Methods that the bridge treats in its own way."""

from __future__ import annotations

import pytest

from mcpbridge.rules.mcp.methods import (
    ASKED_ABILITY,
    LOG_LEVELS,
    Audience,
    coalescing_key,
    concerns,
    level_admits,
    more_verbose,
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
        "notifications/progress",
        "notifications/cancelled",
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
        "notifications/Tools/list_changed",
        "notifications/unheard-of",
        "",
    ],
)
def test_what_one_session_caused_is_read_by_no_other(method: str) -> None:
    """A notification of a shared child that may be one session's goes to none."""
    assert shared_audience(method) is Audience.UNKNOWN


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


def test_some_notifications_have_an_audience_of_their_own() -> None:
    """A log message is the only caller's, an update is for those who subscribed."""
    assert shared_audience("notifications/message") is Audience.ONLY_CALLER
    assert shared_audience("notifications/resources/updated") is Audience.SUBSCRIBERS


@pytest.mark.parametrize(
    ("method", "uri", "key"),
    [
        ("notifications/tools/list_changed", None, "notifications/tools/list_changed"),
        ("notifications/resources/updated", "a:b", "notifications/resources/updated a:b"),
        ("notifications/resources/updated", None, None),
        ("notifications/message", None, None),
        ("notifications/message", "a:b", None),
        ("notifications/unheard-of", "a:b", None),
    ],
)
def test_news_that_says_the_same_has_the_same_key(
    method: str, uri: str | None, key: str | None
) -> None:
    """Changes of one list or one resource are one piece of news; all else is told each time."""
    assert coalescing_key(method, uri) == key


@pytest.mark.parametrize(
    ("one", "other", "level"),
    [
        ("debug", "error", "debug"),
        ("error", "debug", "debug"),
        ("error", "error", "error"),
        (None, "error", "error"),
        ("emergency", None, "emergency"),
        ("loud", "error", "error"),
        (None, None, None),
        ("loud", None, None),
    ],
)
def test_the_more_verbose_level_wins(one: str | None, other: str | None, level: str | None) -> None:
    """Of two levels the lower one is asked of the child; an unknown one asks nothing."""
    assert more_verbose(one, other) == level


def test_a_level_admits_itself_and_what_is_graver() -> None:
    """A session gets the messages of its level and above, and all where a level is unknown."""
    for i, asked in enumerate(LOG_LEVELS):
        for j, level in enumerate(LOG_LEVELS):
            assert level_admits(asked, level) is (j >= i)
        assert level_admits(asked, None)
        assert level_admits(asked, "loud")
        assert level_admits(None, asked)
        assert level_admits("loud", asked)


@pytest.mark.parametrize(
    ("subscribed", "updated", "expected"),
    [
        ("file:///a", "file:///a", True),
        ("file:///a", "file:///a/b", True),
        ("file:///a/", "file:///a/b/c", True),
        ("file:///a", "file:///ab", False),
        ("file:///a/b", "file:///a", False),
        ("file:///a", "http:///a", False),
    ],
)
def test_an_update_concerns_the_resource_and_what_it_is_part_of(
    subscribed: str, updated: str, expected: bool
) -> None:
    """A subscriber gets updates of its resource and of those below it, but not of others."""
    assert concerns(subscribed, updated) is expected


def test_long_names_of_resources_are_not_taken_for_the_same() -> None:
    """They may have been cut off, and what follows may differ."""
    assert coalescing_key("notifications/resources/updated", "a" * 8192) is not None
    assert coalescing_key("notifications/resources/updated", "a" * 8193) is None
