"""The ladder of checks of 2026-07-28; each rung is tried below all that come before it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.rules.mcp.modern_checks import (
    HEADER_MISMATCH,
    SUPPORTED,
    UNSUPPORTED_VERSION,
    RoutingHeaders,
    check_message,
    check_method,
    check_request,
    is_modern,
    missing_capability,
    not_served,
    unsupported,
)
from mcpbridge.rules.mcp.request_meta import CLIENT_CAPABILITIES, PROTOCOL_VERSION, RequestMeta
from mcpbridge.rules.mcp.revisions import known
from mcpbridge.wire.messages import Failure, Notification, Request, Result
from tests.support.proofs import proves

DATE, NEW, OLD = "2026-07-28", "2025-11-25", "2024-11-05"
GOOD = RoutingHeaders(version=DATE, method="tools/list", name=None, params={}, repeated=False)
CALL = RoutingHeaders(version=DATE, method="tools/call", name="x", params={}, repeated=False)


def request(method: str = "tools/list", version: Any = DATE, **params: Any) -> Request:
    """A request with its envelope."""
    meta = {PROTOCOL_VERSION: version, CLIENT_CAPABILITIES: {}}
    return Request(b"1", method, json.dumps({"_meta": meta, **params}).encode())


def refused(found: RequestMeta | Refusal) -> tuple[int, int]:
    """Status and code."""
    assert isinstance(found, Refusal)
    error = json.loads(found.error)
    return found.status, error["code"]


def changed(routing: RoutingHeaders, **members: Any) -> RoutingHeaders:
    """The headers with some of them changed."""
    return msgspec.structs.replace(routing, **members)


@proves("C25")
@pytest.mark.parametrize(
    ("claim", "version", "modern"),
    [
        (None, None, False),
        (None, "2025-11-25", False),
        (None, "2099-01-01", False),
        (None, DATE, True),
        (b'"2026-07-28"', None, True),
        (b'"2026-07-28"', "2025-11-25", True),
        (b'"2099-01-01"', None, True),
        (b"7", None, True),
        (b"null", "2025-11-25", True),
        (b'"2025-11-25"', None, False),
        (b'"2025-11-25"', DATE, False),
    ],
)
def test_the_body_decides_the_era(claim: bytes | None, version: str | None, modern: bool) -> None:
    """The header alone does only where the body claims nothing."""
    assert is_modern(Request(b"1", "x"), claim, version) is modern
    by_body = modern and claim is not None
    assert is_modern(Request(b"1", "initialize"), claim, version) is by_body


@proves("C19")
def test_what_is_right_climbs_to_the_top() -> None:
    """The envelope comes back."""
    assert isinstance(check_request(request(), GOOD), RequestMeta)
    assert isinstance(check_request(request("tools/call", name="x"), CALL), RequestMeta)
    encoded = changed(CALL, name="=?base64?w6k=?=")
    assert isinstance(check_request(request("tools/call", name="é"), encoded), RequestMeta)
    assert isinstance(
        check_request(request("x/y"), changed(GOOD, method="x/y", name="?")), RequestMeta
    )


@proves("C22", "C23", "C24", "C25", "C26", "C27", "C98")
@pytest.mark.parametrize(
    ("asked", "routing", "code"),
    [
        (Request(b"1", "tools/list"), changed(GOOD, repeated=True), -32020),
        (Request(b"1", "tools/list", b'{"_meta":{"a":1,"a":2}}'), GOOD, -32600),
        (Request(b"1", "tools/list"), changed(GOOD, version=None, method=None), -32602),
        (Request(b"1", "initialize"), changed(GOOD, method=None), -32020),
        (request(version="2099-01-01"), changed(GOOD, version=None), -32020),
        (request(version="2099-01-01"), changed(GOOD, method=None), -32020),
        (request(version="2099-01-01"), changed(GOOD, version="2099-01-01", method=""), -32022),
        (request(version="2025-11-25"), changed(GOOD, version="2025-11-25"), -32022),
        (request(), changed(GOOD, method=None), -32020),
        (request(), changed(GOOD, method="TOOLS/list"), -32020),
        (request("tools/call"), changed(CALL, method="x"), -32020),
        (request("tools/call"), CALL, -32602),
        (request("resources/read", uri=1), changed(CALL, method="resources/read"), -32602),
        (request("tools/call", name="x"), changed(CALL, name=None), -32020),
        (request("prompts/get", name="x"), changed(CALL, method="prompts/get", name="y"), -32020),
        (request("tools/call", name="é"), changed(CALL, name="é"), -32020),
        (request("tasks/get", taskId="t"), changed(CALL, method="tasks/get"), -32020),
    ],
)
def test_the_first_rung_that_breaks_refuses(
    asked: Request, routing: RoutingHeaders, code: int
) -> None:
    """With its own code, and 400."""
    assert refused(check_request(asked, routing)) == (400, code)


@proves("C28", "C44")
@pytest.mark.parametrize(
    ("method", "offered", "date", "found"),
    [
        ("initialize", {"tools"}, NEW, False),
        ("ping", {"tools"}, NEW, False),
        ("logging/setLevel", {"logging"}, NEW, False),
        ("resources/subscribe", {"resources"}, NEW, False),
        ("tools/list", {"tools"}, NEW, True),
        ("tools/list", {"prompts"}, NEW, False),
        ("prompts/get", set(), NEW, False),
        ("resources/read", {"resources"}, NEW, True),
        ("completion/complete", set(), NEW, False),
        ("completion/complete", set(), OLD, True),
        ("completion/complete", {"completions"}, NEW, True),
        ("tools/list", set(), OLD, False),
        ("x/unknown", set(), NEW, True),
        ("tasks/get", {"tasks"}, NEW, False),
        ("tasks/cancel", {"tasks"}, OLD, False),
        ("tasks/get", set(), DATE, True),
        ("tasks/list", set(), DATE, False),
    ],
)
def test_methods_that_exist(method: str, offered: set[str], date: str, found: bool) -> None:
    """What was removed or is not advertised is 404; the unknown is the child's."""
    revision = known(date)
    assert revision is not None
    refusal = check_method(method, offered, revision)
    if found:
        assert refusal is None
    else:
        assert refusal is not None
        assert refused(refusal) == (404, -32601)


@proves("C29")
def test_answers_do_not_exist() -> None:
    """Notifications do, and have no effect."""
    assert check_message(request()) is None
    assert check_message(Notification("notifications/cancelled")) is None
    for answer in (Result(b"1", b"{}"), Failure(b"1", b'{"code":1,"message":""}')):
        refusal = check_message(answer)
        assert refusal is not None
        assert refused(refusal) == (400, -32600)


@proves("C23", "C87")
def test_refusals_say_what_their_clients_need() -> None:
    """Versions, capabilities, and for who is to fall back no code of this revision."""
    error = json.loads(unsupported("x").error)
    assert error["data"] == {"supported": list(SUPPORTED), "requested": "x"}
    assert error["code"] == UNSUPPORTED_VERSION
    assert json.loads(unsupported(None).error)["data"]["requested"] is None
    required: dict[str, object] = {"elicitation": {"url": {}}}
    assert json.loads(missing_capability(required))["data"] == {"requiredCapabilities": required}
    assert refused(not_served()) == (400, -32600)
    assert HEADER_MISMATCH == -32020
