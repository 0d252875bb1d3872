"""Subscriptions of one client, found by the resource that was updated."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.mcp.methods import concerns
from mcpbridge.rules.uri_set import MAX_URI_BYTES, UriSet, uri_problem

URIS = st.text(alphabet="ab/", max_size=6)


@given(st.lists(st.tuples(st.booleans(), URIS), max_size=30), URIS)
def test_an_index_finds_what_a_walk_finds(changes: list[tuple[bool, str]], updated: str) -> None:
    """After any additions and removals: an exact name, or one below it."""
    found, plain = UriSet(), set[str]()
    for added, uri in changes:
        if added:
            found.add(uri)
            plain.add(uri)
        else:
            found.discard(uri)
            plain.discard(uri)
    assert set(found) == plain
    assert found.concerned(updated) == any(concerns(own, updated) for own in plain)


def test_a_name_that_is_too_long_is_a_problem_that_says_how_long() -> None:
    """In bytes, not in characters."""
    assert uri_problem("é" * (MAX_URI_BYTES // 2)) is None
    assert uri_problem("é" * (MAX_URI_BYTES // 2) + "a") == (
        "the URI of a resource has 8193 bytes (at most 8192)"
    )
