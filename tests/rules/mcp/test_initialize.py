"""What a child said of itself, and the answers made from it."""

from __future__ import annotations

import json

import pytest

from mcpbridge.errors import DuplicateMember
from mcpbridge.rules.mcp.initialize import (
    ServerProfile,
    bridge_introduction,
    read_introduction,
    read_profile,
)
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY, SERVED, known

RESULT = (
    b'{ "x":1.0, "protocolVersion" : "2025-06-18" ,"capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"d\\u00e9mo","version":"1"}}'
)


def profile(result: bytes = RESULT) -> ServerProfile:
    """The profile in a result that must have one."""
    found = read_profile(result)
    assert found is not None
    return found


@pytest.mark.parametrize("date", [revision.date for revision in SERVED])
def test_a_handshake_rests_on_any_served_revision(date: str) -> None:
    """A result with a revision of the legacy era is kept as it came."""
    result = RESULT.replace(b"2025-06-18", date.encode())
    assert profile(result) == ServerProfile(result, known(date) or NEWEST_LEGACY)
    assert profile(result).revision.date == date


@pytest.mark.parametrize(
    "result",
    [
        b"null",
        b"[]",
        b'"2025-06-18"',
        b"{}",
        b'{"protocolVersion":null}',
        b'{"protocolVersion":20250618}',
        b'{"protocolVersion":"2025-06-19"}',
        b'{"protocolVersion":"2026-07-28"}',
        b'{"protocolVersion":"2025-06-18","protocolVersion":"2025-06-18"}',
        b'{"x":{"protocolVersion":"2025-06-18"}}',
    ],
)
def test_no_handshake_rests_on_anything_else(result: bytes) -> None:
    """A result without a known legacy revision, or with two, is not a profile."""
    assert read_profile(result) is None


@pytest.mark.parametrize(
    ("requested", "answered"),
    [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-06-18"),
        ("2026-07-28", "2025-06-18"),
        ("1999-01-01", "2025-06-18"),
        ("", "2025-06-18"),
        (None, "2025-06-18"),
    ],
)
def test_each_client_is_answered_in_its_revision(requested: str | None, answered: str) -> None:
    """The revision is the client's if the child's is as new; nothing else in the answer changes."""
    revision, result = profile().answer(requested)
    assert revision.date == answered
    assert result == RESULT.replace(b"2025-06-18", answered.encode())


@pytest.mark.parametrize(
    ("server_info", "name"),
    [
        (b'"serverInfo":{"name":"demo"}', "demo"),
        (b'"serverInfo":{"name":"d\\u00e9mo"}', "démo"),
        (b'"serverInfo":{"name":""}', "unnamed"),
        (b'"serverInfo":{"name":7}', "unnamed"),
        (b'"serverInfo":{"name":"\\ud800"}', "unnamed"),
        (b'"serverInfo":{}', "unnamed"),
        (b'"serverInfo":"demo"', "unnamed"),
        (b'"serverInfo":{"name":"a","name":"b"}', "unnamed"),
        (b'"x":1', "unnamed"),
    ],
)
def test_a_child_without_a_proper_name_is_unnamed(server_info: bytes, name: str) -> None:
    """The name is for people, so a child that spoils it is served all the same."""
    assert profile(b'{"protocolVersion":"2025-06-18",' + server_info + b"}").name == name


@pytest.mark.parametrize(
    ("capabilities", "abilities"),
    [
        (b"{}", set[str]()),
        (b'{"roots":{"listChanged":true}}', {"roots"}),
        (b'{"sampling":{},"elicitation":{},"roots":{}}', {"sampling", "elicitation", "roots"}),
        (b'{"sampling":null,"roots":{}}', {"roots"}),
        (b'{"experimental":{"sampling":{}},"tasks":{}}', set[str]()),
        (b'{"s\\u0061mpling":{}}', {"sampling"}),
    ],
)
def test_an_introduction_tells_what_a_client_can_be_asked(
    capabilities: bytes, abilities: set[str]
) -> None:
    """Of the capabilities only those that a child may ask for count, and null does not count."""
    params = b'{"protocolVersion":"2099-01-01","capabilities":' + capabilities + b"}"
    client_profile = read_introduction(params)
    assert client_profile is not None
    assert client_profile.params == params
    assert client_profile.requested == "2099-01-01"
    assert client_profile.abilities == abilities


@pytest.mark.parametrize(
    "params",
    [
        None,
        b"[]",
        b"{}",
        b'{"capabilities":{}}',
        b'{"protocolVersion":"a"}',
        b'{"protocolVersion":1,"capabilities":{}}',
        b'{"protocolVersion":"\\ud800","capabilities":{}}',
        b'{"protocolVersion":"a","capabilities":null}',
        b'{"protocolVersion":"a","capabilities":[]}',
    ],
)
def test_params_without_what_they_must_hold_are_no_introduction(params: bytes | None) -> None:
    """A revision as a string and capabilities as an object are needed."""
    assert read_introduction(params) is None


@pytest.mark.parametrize(
    "params",
    [
        b'{"protocolVersion":"a","protocolVersion":"a","capabilities":{}}',
        b'{"protocolVersion":"a","capabilities":{},"capabilities":{"roots":{}}}',
        b'{"protocolVersion":"a","capabilities":{"roots":null,"roots":{}}}',
    ],
)
def test_an_introduction_with_two_of_a_member_is_refused(params: bytes) -> None:
    """Where it would decide which child serves, a member that stands twice is refused."""
    with pytest.raises(DuplicateMember):
        read_introduction(params)


def test_the_bridge_offers_nothing_to_a_shared_child() -> None:
    """The bridge's own introduction is one that can be read, and offers no ability."""
    params = bridge_introduction("1.2.3")
    client_profile = read_introduction(params)
    assert client_profile is not None
    assert client_profile.requested == NEWEST_LEGACY.date
    assert client_profile.abilities == frozenset()
    assert json.loads(params)["clientInfo"] == {"name": "mcpbridge", "version": "1.2.3"}
