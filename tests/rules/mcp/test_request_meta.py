"""What a request of 2026-07-28 says of its client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.errors import DuplicateMember
from mcpbridge.rules.mcp.request_meta import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    LOG_LEVEL,
    PROTOCOL_VERSION,
    RequestMeta,
    claimed_version,
    legacy_capabilities,
    read_envelope,
    stripped,
)
from mcpbridge.wire.messages import Notification, Request, Result
from tests.support.proofs import proves

DATE = "2026-07-28"


def params(capabilities: Any = None, **more: Any) -> bytes:
    """Params with an envelope."""
    meta = {PROTOCOL_VERSION: DATE, CLIENT_CAPABILITIES: capabilities or {}, **more}
    return json.dumps({"name": "x", "_meta": meta}).encode()


def envelope(capabilities: Any = None, **more: Any) -> RequestMeta:
    """The envelope in params that must have one."""
    found = read_envelope(params(capabilities, **more))
    assert isinstance(found, RequestMeta)
    return found


@pytest.mark.parametrize(
    ("given", "claim"),
    [
        (None, None),
        (b"{}", None),
        (b'{"_meta":{}}', None),
        (b"[1]", None),
        (b'{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}', b'"2026-07-28"'),
        (b'{"_meta":{"io.modelcontextprotocol\\/protocolVersion":7}}', b"7"),
        (b'{"_meta":{"\\u0069o.modelcontextprotocol/protocolVersion":null}}', b"null"),
        (b'{"_m\\u0065ta":{"io.modelcontextprotocol/protocolVersion":"x"}}', b'"x"'),
        (b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}', None),
        (b'{"_meta":{"io.modelcontextprotocol/clientInfo":{}}}', None),
        (b'["io.modelcontextprotocol/protocolVersion"]', None),
        (
            b'{"_meta":{"io.modelcontextprotocol/protocolVersion":1,'
            b'"io.modelcontextprotocol/protocolVersion":2}}',
            None,
        ),
    ],
)
def test_a_claim_is_found_where_it_stands(given: bytes | None, claim: bytes | None) -> None:
    """In `params._meta` under its key, however that is spelled, and nowhere else."""
    assert claimed_version(Request(b"1", "m", given)) == claim
    assert claimed_version(Notification("m", given)) == claim


def test_an_answer_claims_nothing() -> None:
    """It has no params."""
    assert claimed_version(Result(b"1", params())) is None


@proves("C24")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "_meta"),
        (b"{}", "_meta"),
        (b"[]", "_meta"),
        (b'{"_meta":[]}', "_meta"),
        (b'{"_meta":{}}', PROTOCOL_VERSION),
        (json.dumps({"_meta": {PROTOCOL_VERSION: 1}}).encode(), PROTOCOL_VERSION),
        (json.dumps({"_meta": {PROTOCOL_VERSION: DATE}}).encode(), CLIENT_CAPABILITIES),
        (params(**{CLIENT_CAPABILITIES: None}), CLIENT_CAPABILITIES),
        (params(**{CLIENT_CAPABILITIES: []}), CLIENT_CAPABILITIES),
        (params(**{LOG_LEVEL: "loud"}), LOG_LEVEL),
        (params(**{LOG_LEVEL: None}), LOG_LEVEL),
    ],
)
def test_what_is_missing_is_named(given: bytes | None, named: str) -> None:
    """The text says which key is wrong."""
    assert named in str(read_envelope(given))


def test_a_key_that_stands_twice_is_no_envelope() -> None:
    """Which of the two would another reader take?"""
    meta = b'{"_meta":{"%b":"a","%b":"b"}}' % ((PROTOCOL_VERSION.encode(),) * 2)
    with pytest.raises(DuplicateMember):
        read_envelope(meta)


@proves("C33")
@pytest.mark.parametrize(
    ("capabilities", "abilities", "has_form", "has_url"),
    [
        ({}, set(), False, False),
        ({"elicitation": {}}, {"elicitation"}, True, False),
        ({"elicitation": True}, {"elicitation"}, True, False),
        ({"elicitation": {"form": {}}}, {"elicitation"}, True, False),
        ({"elicitation": {"url": {}}}, {"elicitation"}, False, True),
        ({"elicitation": {"form": {}, "url": {}}}, {"elicitation"}, True, True),
        ({"elicitation": None, "roots": None}, set(), False, False),
        ({"sampling": {}, "roots": {}, "x": {}}, {"sampling", "roots"}, False, False),
    ],
)
def test_abilities_are_read(
    capabilities: Any, abilities: set[str], has_form: bool, has_url: bool
) -> None:
    """An elicitation without a mode is one by form; null is nothing."""
    found = envelope(capabilities)
    assert found.abilities == abilities
    assert (found.form_elicitation, found.url_elicitation) == (has_form, has_url)
    assert (found.version, found.log_level) == (DATE, None)


@proves("C38")
def test_a_level_is_read() -> None:
    """As the client wrote it."""
    assert envelope(**{LOG_LEVEL: "notice"}).log_level == "notice"


def test_equal_offers_have_one_fingerprint() -> None:
    """Order, roots' news and what a handshake does not know make no difference."""
    one = envelope({"roots": {"listChanged": True}, "sampling": {"b": 1, "a": {}}, "tasks": {}})
    other = envelope({"sampling": {"a": {}, "b": 1}, "roots": {}, "extensions": {"x": 1}})
    assert one.fingerprint == other.fingerprint
    assert legacy_capabilities(one) == b'{"roots":{},"sampling":{"a":{},"b":1}}'
    assert envelope({"roots": {}}).fingerprint != envelope({}).fingerprint


@pytest.mark.parametrize("value", [b'{"a":"\\ud800"}', b'{"a":1e999}'])
def test_an_offer_that_cannot_be_read_goes_by_its_spelling(value: bytes) -> None:
    """What no decoder takes is legal JSON all the same."""
    found = read_envelope(params({"sampling": 1}).replace(b'"sampling": 1', b'"sampling":' + value))
    assert isinstance(found, RequestMeta)
    assert legacy_capabilities(found) == b'{"sampling":%b}' % value
    assert len(found.fingerprint) == 16


@proves("C51")
@pytest.mark.parametrize(
    ("given", "left"),
    [
        (None, None),
        (b"[1]", b"[1]"),
        (b"{}", b"{}"),
        (params(**{CLIENT_INFO: {}, LOG_LEVEL: "info"}), b'{"name":"x"}'),
        (b'{"_meta":{"progressToken":1}}', b'{"_meta":{"progressToken":1}}'),
        (b'{"_meta":{}}', b"{}"),
        (b'{"_meta":7}', b'{"_meta":7}'),
        (params(traceparent="00"), b'{"name":"x","_meta":{"traceparent":"00"}}'),
        (b'{"inputResponses":{},"requestState":"x","a":1.0}', b'{"a":1.0}'),
    ],
)
def test_envelope_and_retry_are_taken_off(given: bytes | None, left: bytes | None) -> None:
    """A legacy child sees neither; what others have put into `_meta` stays."""
    found = stripped(given)
    assert found == left or json.loads(found or b"0") == json.loads(left or b"1")
