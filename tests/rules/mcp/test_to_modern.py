"""Answers of a legacy child, made whole for a client of 2026-07-28."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.rules.mcp.initialize import SERVER_INFO, ServerProfile
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY
from mcpbridge.rules.mcp.to_modern import (
    CACHEABLE,
    code_of,
    completed,
    discovered,
    error_up,
    privately,
)
from mcpbridge.wire.json_object import LONG_BYTES, Payload, spans
from mcpbridge.wire.messages import Failure, Result
from tests.support.proofs import proves


def profile(**said: Any) -> ServerProfile:
    """What a server said in its handshake."""
    return ServerProfile(
        json.dumps({"protocolVersion": "2025-11-25", **said}).encode(), NEWEST_LEGACY
    )


INFO = {"name": "n", "version": "1"}
SERVER = profile(serverInfo=INFO, capabilities={"tools": {}, "tasks": {}}, instructions="i")


@proves("C20")
def test_discovery_is_made_of_the_handshake() -> None:
    """Versions, capabilities without tasks, instructions; nothing else at its top."""
    assert json.loads(discovered(SERVER, ("2025-11-25", "2024-11-05"))) == {
        "supportedVersions": ["2026-07-28", "2025-11-25", "2024-11-05"],
        "capabilities": {"tools": {}},
        "instructions": "i",
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {SERVER_INFO: INFO},
    }


@proves("C20")
@pytest.mark.parametrize("said", [{}, {"capabilities": None}, {"capabilities": [1]}])
def test_a_handshake_that_says_little_is_enough(said: Any) -> None:
    """Without capabilities it has none."""
    found = json.loads(discovered(profile(**said), ()))
    assert found["capabilities"] == {}
    assert found["supportedVersions"] == ["2026-07-28"]
    assert found["_meta"] == {}
    assert "instructions" not in found


@proves("C30")
@pytest.mark.parametrize("method", [*sorted(CACHEABLE), "tools/call", "prompts/get", "x/y"])
def test_a_result_tells_its_type_and_how_long_it_may_be_kept(method: str) -> None:
    """The latter where it may be kept, and not while it asks for input."""
    found = json.loads(completed(b'{"a":1}', method, SERVER))
    assert found["resultType"] == "complete"
    assert ("ttlMs" in found, "cacheScope" in found) == ((method in CACHEABLE,) * 2)
    asking = json.loads(completed(b'{"resultType":"input_required"}', method, SERVER))
    assert set(asking) == {"resultType", "_meta"}


@proves("C30")
def test_what_is_there_stays() -> None:
    """Values keep their spelling; what the result says already is not said again."""
    meta = b'{"k":1.0,"io.modelcontextprotocol/serverInfo":{"name":"own"},'
    meta += b'"io.modelcontextprotocol/related-task":{"taskId":"t"}}'
    result = b'{"x":1.50,"ttlMs":9,"cacheScope":"public","_meta":%b}' % meta
    found = completed(result, "tools/list", SERVER)
    assert b'"x":1.50' in found
    assert json.loads(found) == {
        "x": 1.5,
        "ttlMs": 9,
        "cacheScope": "public",
        "resultType": "complete",
        "_meta": {"k": 1.0, SERVER_INFO: {"name": "own"}},
    }
    assert json.loads(completed(b'{"_meta":7}', "x/y", SERVER))["_meta"] == {SERVER_INFO: INFO}


@pytest.mark.parametrize("result", [b"[]", b"7", b"null", b'{"a":1,"a":2}'])
def test_a_result_that_is_no_object_passes(result: bytes) -> None:
    """There is nothing to put into it."""
    assert completed(result, "tools/list", SERVER) == result


@proves("C30")
@pytest.mark.parametrize(
    ("tools", "left"),
    [
        (b'[{"name":"a"}]', b'[{"name":"a"}]'),
        (b'[{"name":"a","execution":{}},{"b": 1}]', b'[{"name":"a"},{"b": 1}]'),
        (b'{"execution":1}', b'{"execution":1}'),
        (b'["execution"]', b'["execution"]'),
    ],
)
def test_tools_know_no_tasks(tools: bytes, left: bytes) -> None:
    """What cannot be read as tools is left alone."""
    found = completed(b'{"tools":%b}' % tools, "tools/list", SERVER)
    assert b'"tools":%b' % left in found


@proves("C43")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (b'{"code":-32002,"message":"m","data":{"uri":"u"},"x":1}', -32602),
        (b'{"code":-32019,"message":"m"}', -32019),
        (b'{"code":-32020,"message":"m"}', -32603),
        (b'{"code":-32042,"message":"m"}', -32603),
        (b'{"code":-32099}', -32603),
        (b'{"code":-32100,"message":"m"}', -32100),
        (b'{"code":-32601,"message":"m"}', -32601),
        (b'{"code":0,"message":"m"}', 0),
        (b'{"code":"x","message":"m"}', -32603),
        (b'{"code":1.5,"message":"m"}', -32603),
        (b'{"message":"m"}', -32603),
        (b"7", -32603),
        (b'{"code":1,"code":2}', -32603),
    ],
)
def test_codes_mean_the_same(error: bytes, code: int) -> None:
    """What the revision reserves is not used in another sense, and the original is told."""
    found = json.loads(error_up(error))
    assert found["code"] == code
    assert isinstance(found.get("message"), str)
    if b"-32002" in error:
        assert (found["data"], found["x"]) == ({"uri": "u"}, 1)
    elif code == code_of(error):
        assert error_up(error) == error
    elif code_of(error) is not None:
        assert found["data"]["original"] == json.loads(error)


@proves("C102")
@pytest.mark.parametrize(
    ("result", "after"),
    [
        (b'{"cacheScope":"public","n":1.00}', b'{"cacheScope":"private","n":1.00}'),
        (b'{"cacheScope":"p\\u0075blic"}', b'{"cacheScope":"private"}'),
        (b'{"cacheScope":"private","a":"public"}', None),
        (b'{"a":"public"}', None),
        (b'{"tools":[]}', None),
        (b'"public"', None),
    ],
)
def test_what_a_server_calls_public_is_made_private(result: bytes, after: bytes | None) -> None:
    """Nothing else of it changes, nor does an error."""
    reply = Result(b"1", result)
    assert privately(reply) == Result(b"1", result if after is None else after)
    failure = Failure(b"1", b'{"code":1,"message":"public"}')
    assert privately(failure) is failure


@pytest.mark.parametrize(
    "members",
    [b'"content":[]', b'"_meta":{"a":1}', b'"resultType":"task","_meta":{}', b'"a":"\\u0062"'],
)
def test_a_long_result_is_completed_as_a_short_one_is(members: bytes) -> None:
    """And what it consists of is known without another look."""
    short = b'{"a":"%b",%b}' % (b"x", members.replace(b'"a":"', b'"b":"'))
    long = short.replace(b'"x"', b'"%b"' % (b"x" * LONG_BYTES))
    found = completed(long, "tools/call", SERVER)
    assert isinstance(found, Payload)
    assert found.known == spans(bytes(found))
    wanted = json.loads(completed(short, "tools/call", SERVER))
    assert json.loads(found) == {**wanted, "a": "x" * LONG_BYTES}
