"""What an answer to the probe says of a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.rules.mcp.era_probe import (
    VERDICTS,
    ChildEra,
    discovery_of,
    own_envelope,
    speaks_modern,
)
from mcpbridge.rules.mcp.request_meta import RequestMeta, read_envelope
from mcpbridge.wire.messages import Failure, Reply, Result
from tests.support.proofs import proves

DATE = "2026-07-28"


def result(value: Any) -> Result:
    """A good answer."""
    return Result(b"1", json.dumps(value).encode())


def failure(code: Any, data: Any = None) -> Failure:
    """A bad one."""
    return Failure(b"1", json.dumps({"code": code, "message": "", "data": data}).encode())


@proves("C52")
@pytest.mark.parametrize(
    ("reply", "modern"),
    [
        (result({"supportedVersions": [DATE]}), True),
        (result({"supportedVersions": ["2099-01-01", DATE, "2025-11-25"]}), True),
        (result({"supportedVersions": ["2025-11-25"]}), False),
        (result({"supportedVersions": ["2099-01-01"]}), False),
        (result({"supportedVersions": []}), False),
        (result({"supportedVersions": DATE}), False),
        (result({}), False),
        (result([]), False),
        (failure(-32601), False),
        (failure(-32602), False),
        (failure(-32600), False),
        (failure(-32603), False),
        (failure(0), False),
        (failure(-32000, {"supported": [DATE]}), False),
        (failure(-32020), True),
        (failure(-32021), True),
        (failure(-32022), False),
        (failure(-32022, {"supported": [DATE]}), True),
        (failure(-32022, {"supported": ["2099-01-01", DATE]}), True),
        (failure(-32022, {"supported": ["2025-11-25"]}), False),
        (failure(-32022, {"supported": ["2099-01-01"]}), False),
        (failure(-32022, {"supported": DATE}), False),
        (failure(-32022, {"supported": [1]}), False),
        (failure("-32022", {"supported": [DATE]}), False),
        (Failure(b"1", b'{"message":"x"}'), False),
        (Failure(b"1", b'{"code":-32022,"data":{"a":1,"a":2}}'), False),
    ],
)
def test_only_what_this_revision_says_is_evidence_of_it(reply: Reply, modern: bool) -> None:
    """A result or its own error that names a known revision; no single code tells."""
    assert speaks_modern(reply) is modern


def test_the_probe_is_a_request_like_any_other() -> None:
    """Its envelope is whole and offers nothing."""
    envelope = read_envelope(own_envelope(DATE, "1.2"))
    assert isinstance(envelope, RequestMeta)
    assert (envelope.version, envelope.abilities) == (DATE, frozenset())


def test_a_discovery_is_a_profile() -> None:
    """An error does not count, nor a result without a known revision."""
    good = result({"supportedVersions": [DATE], "capabilities": {"tools": {}}})
    found = discovery_of(good)
    assert found is not None
    assert set(found.capabilities) == {"tools"}
    assert discovery_of(failure(-32022, {"supported": [DATE]})) is None
    assert discovery_of(result({})) is None


def test_the_operators_word_is_a_verdict() -> None:
    """All but `auto` say it."""
    assert set(VERDICTS) == set(ChildEra) - {ChildEra.AUTO}
    assert all(verdict.legacy or verdict.modern for verdict in VERDICTS.values())
