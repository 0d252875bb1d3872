"""What a child of 2026-07-28 says, for clients of the handshake, and their requests for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.rules.mcp.initialize import (
    ClientProfile,
    ServerProfile,
    read_discovery,
    read_introduction,
)
from mcpbridge.rules.mcp.revisions import known
from mcpbridge.rules.mcp.to_legacy import (
    enveloped,
    error_down,
    introduced,
    plain_notification,
    result_down,
    result_type,
    server_request_down,
)
from mcpbridge.wire.messages import Notification
from tests.support.proofs import proves

KEY = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}
ARRAY = {"type": "array"}


def dumped(value: Any) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


def listed(result: bytes) -> tuple[bytes, frozenset[str]]:
    """The result of `tools/list` as a legacy client gets it, and the tools that were changed."""
    return result_down(result, "tools/list")


def called(result: bytes, *, wrap: bool) -> bytes:
    """The result of `tools/call` as a legacy client gets it."""
    return result_down(result, "tools/call", wrap=wrap)[0]


def profile(**members: Any) -> ServerProfile:
    """What a child says of itself."""
    found = read_discovery(dumped({"supportedVersions": [MODERN], **members}))
    assert found is not None
    return found


def client_profile(capabilities: Any = None, **members: Any) -> ClientProfile:
    """What a client says of itself."""
    params = {"protocolVersion": "2025-06-18", "capabilities": capabilities or {}, **members}
    found = read_introduction(dumped(params))
    assert found is not None
    return found


def answer_to_initialize(some: ServerProfile, date: str = "2025-06-18") -> Any:
    """The result that a client of that revision sees."""
    revision = known(date)
    assert revision is not None
    return json.loads(introduced(some, revision))


@proves("C81")
def test_a_client_is_told_what_the_child_said_in_its_own_terms() -> None:
    """Its revision, name and instructions; the tasks of 2026-07-28 are not those it knows."""
    some = profile(
        capabilities={"tools": {}, "extensions": {KEY + "tasks": {}, "a/b": {"c": 1}}},
        instructions="do \u2028",
        ttlMs=5,
        cacheScope="public",
        resultType="complete",
        _meta={KEY + "serverInfo": {"name": "n", "version": "1", "title": "T"}},
    )
    assert answer_to_initialize(some, "2024-11-05") == {
        "protocolVersion": "2024-11-05",
        "capabilities": {"tools": {}, "extensions": {"a/b": {"c": 1}}},
        "serverInfo": {"name": "n", "version": "1", "title": "T"},
        "instructions": "do \u2028",
    }


@proves("C81")
@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        ({}, {"name": "mcp-server", "version": "0"}),
        ({KEY + "serverInfo": {"name": "n"}}, {"name": "n", "version": "0"}),
        ({KEY + "serverInfo": {"name": "", "version": ""}}, {"name": "0", "version": "0"}),
    ],
)
def test_a_server_without_name_or_version_gets_them(meta: Any, shown: Any) -> None:
    """Legacy clients refuse the absent, some of them the empty."""
    said = answer_to_initialize(profile(_meta=meta))
    assert said["serverInfo"] == shown
    assert said["capabilities"] == {}
    assert "instructions" not in said


@proves("C82", "C85")
@pytest.mark.parametrize("params", [None, b"[1]", b"{}", b'{"_meta":7}', b'{"_meta":null}'])
def test_every_request_gets_an_envelope(params: bytes | None) -> None:
    """Whatever its own parameters are; what the client did not say is not made up."""
    meta = {KEY + "protocolVersion": MODERN, KEY + "clientCapabilities": {}}
    assert json.loads(enveloped(params, None, None)) == {"_meta": meta}


@proves("C82", "C83", "C85")
def test_the_envelope_says_what_the_client_said() -> None:
    """Its name, its abilities, its level; a forged envelope is written over."""
    params = {
        "name": "t",
        "arguments": {"x": 1.50},
        "_meta": {"progressToken": "p", "own": 1, KEY + "protocolVersion": "forged"},
    }
    client = client_profile({"sampling": {"tools": {}}}, clientInfo={"name": "c", "version": "2"})
    added = {"inputResponses": b'{"q":{}}', "requestState": b'"s"'}
    assert json.loads(enveloped(dumped(params), client, "error", added)) == {
        "name": "t",
        "arguments": {"x": 1.5},
        "inputResponses": {"q": {}},
        "requestState": "s",
        "_meta": {
            "progressToken": "p",
            "own": 1,
            KEY + "protocolVersion": MODERN,
            KEY + "clientCapabilities": {"sampling": {"tools": {}}},
            KEY + "clientInfo": {"name": "c", "version": "2"},
            KEY + "logLevel": "error",
        },
    }


@proves("C85")
@pytest.mark.parametrize(
    ("offered", "declared"),
    [
        ({}, {}),
        ({"roots": {"listChanged": True}}, {"roots": {}}),
        ({"elicitation": {"form": {}, "url": {}}}, {"elicitation": {"form": {}, "url": {}}}),
        ({"tasks": {"list": {}}, "sampling": None}, {}),
        ({"extensions": {KEY + "tasks": {}, "a/b": {}}}, {"extensions": {"a/b": {}}}),
        ({"extensions": 7, "experimental": {"z": 1}}, {"extensions": 7, "experimental": {"z": 1}}),
    ],
)
def test_only_abilities_that_2026_07_28_knows_are_declared(offered: Any, declared: Any) -> None:
    """A change of roots cannot be told, tasks are others."""
    members = json.loads(enveloped(None, client_profile(offered), None))
    assert members["_meta"][KEY + "clientCapabilities"] == declared
    assert KEY + "clientInfo" not in members["_meta"]


@pytest.mark.parametrize(
    ("result", "kind"),
    [(b"{}", "complete"), (b'{"resultType":"task"}', "task"), (b'{"resultType":7}', "complete")],
)
def test_a_result_that_does_not_say_is_complete(result: bytes, kind: str) -> None:
    """As 2026-07-28 has it."""
    assert result_type(result) == kind


PAGE = b'{"mode":"url","url":"https://x.example"}'


@proves("C82")
@pytest.mark.parametrize(
    ("method", "params", "shown"),
    [
        ("elicitation/create", PAGE, PAGE[:-1] + b',"elicitationId":"id"}'),
        ("elicitation/create", PAGE[:-1] + b',"elicitationId":"its"}', None),
        ("elicitation/create", b'{"mode":"form"}', None),
        ("elicitation/create", b"{}", None),
        ("sampling/createMessage", b'{"mode":"url"}', None),
        ("roots/list", None, None),
    ],
)
def test_a_page_to_visit_gets_an_id(method: str, params: bytes | None, shown: bytes | None) -> None:
    """2025-11-25 requires one; every other question passes as it is."""
    found = server_request_down(method, params, "id")
    if shown is None:
        assert found == params
    else:
        assert found is not None
        assert json.loads(found) == json.loads(shown)


@proves("C82")
@pytest.mark.parametrize(
    ("result", "plain"),
    [
        ({"resultType": "complete", "ttlMs": 1, "cacheScope": "public", "a": 1}, {"a": 1}),
        ({"_meta": {KEY + "serverInfo": {}, KEY + "subscriptionId": 1}}, {}),
        ({"_meta": {KEY + "serverInfo": {}, "own": [1]}}, {"_meta": {"own": [1]}}),
        ({"_meta": 7}, {"_meta": 7}),
        ({}, {}),
    ],
)
def test_a_result_loses_what_only_2026_07_28_knows(result: Any, plain: Any) -> None:
    """And nothing else."""
    assert json.loads(result_down(dumped(result), "x/y")[0]) == plain


@proves("C83")
@pytest.mark.parametrize(
    ("params", "plain"),
    [
        (None, None),
        ({"_meta": {KEY + "subscriptionId": 3}}, None),
        ({"uri": "u", "_meta": {KEY + "subscriptionId": 3}}, {"uri": "u"}),
        (
            {"uri": "u", "_meta": {KEY + "subscriptionId": 3, "own": 1}},
            {"uri": "u", "_meta": {"own": 1}},
        ),
        ({"uri": "u"}, {"uri": "u"}),
    ],
)
def test_a_notification_loses_its_tag(params: Any, plain: Any) -> None:
    """The listen is the bridge's, not the session's."""
    heard = plain_notification(
        Notification("notifications/x", None if params is None else dumped(params))
    )
    assert heard.method == "notifications/x"
    assert (None if heard.params is None else json.loads(heard.params)) == plain


@proves("C84")
@pytest.mark.parametrize("code", [-32020, -32021, -32022])
def test_an_error_about_the_envelope_is_the_bridges(code: int) -> None:
    """The client has written none; what the child said is kept beside."""
    error = {"code": code, "message": "m", "data": {"supported": []}}
    shown = json.loads(error_down(dumped(error)))
    assert shown["code"] == -32603
    assert shown["data"]["original"] == error


@proves("C84")
@pytest.mark.parametrize("code", [-32602, -32601, -32603, -32000, 0, 7])
def test_other_errors_pass(code: int) -> None:
    """Byte for byte; not found is not guessed from invalid parameters."""
    error = b'{"code":%d ,"message":"m","x":1}' % code
    assert error_down(error) == error


def tools(*schemas: Any) -> bytes:
    """A list of tools `t0`, `t1`, ... with these output schemas; None for no schema."""
    listed = [
        {"name": f"t{number}", **({} if schema is None else {"outputSchema": schema})}
        for number, schema in enumerate(schemas)
    ]
    return dumped({"tools": listed, "nextCursor": "c"})


@proves("C84")
def test_only_objects_are_output_schemas() -> None:
    """Any other is wrapped, and the tool remembered."""
    adapted, wrapped = listed(tools(None, OBJECT, ARRAY, {}, {"type": ["object", "null"]}))
    assert wrapped == {"t2", "t3", "t4"}
    result = json.loads(adapted)
    assert result["nextCursor"] == "c"
    around = {"type": "object", "required": ["result"]}
    assert [tool.get("outputSchema") for tool in result["tools"]] == [
        None,
        OBJECT,
        {**around, "properties": {"result": ARRAY}},
        {**around, "properties": {"result": {}}},
        {**around, "properties": {"result": {"type": ["object", "null"]}}},
    ]


@proves("C84")
@pytest.mark.parametrize("schema", [True, False])
def test_a_schema_that_is_a_truth_value_is_wrapped(schema: bool) -> None:
    """JSON Schema knows two of them."""
    adapted, wrapped = listed(tools(schema))
    assert wrapped == {"t0"}
    shown = json.loads(adapted)["tools"][0]["outputSchema"]
    assert (shown["type"], shown["properties"]) == ("object", {"result": schema})


@proves("C84")
@pytest.mark.parametrize("result", [b"{}", b'{"tools": [] }', tools(None, None)])
def test_lists_without_output_schemas_pass(result: bytes) -> None:
    """With their members as they are."""
    shown, wrapped = listed(result)
    assert (json.loads(shown), wrapped) == (json.loads(result), frozenset())


@proves("C84")
@pytest.mark.parametrize(
    ("value", "wrap", "shown"),
    [
        ([1, 2], True, {"result": [1, 2]}),
        ([1, 2], False, {"result": [1, 2]}),
        ("s", False, {"result": "s"}),
        (None, True, {"result": None}),
        ({"a": 1}, True, {"result": {"a": 1}}),
        ({"a": 1}, False, {"a": 1}),
    ],
)
def test_structured_content_is_what_its_schema_says(value: Any, wrap: bool, shown: Any) -> None:
    """Wrapped where the schema is, and where it is not an object."""
    result = {"content": [{"type": "text", "text": "x"}], "structuredContent": value}
    adapted = json.loads(called(dumped(result), wrap=wrap))
    assert adapted == {**result, "structuredContent": shown}


@proves("C84")
@pytest.mark.parametrize("content", [None, [], [{"type": "image", "data": "", "mimeType": "i/p"}]])
def test_a_wrapped_value_is_in_a_text_too(content: Any) -> None:
    """For clients that know no structured content."""
    result = {"structuredContent": [1], **({} if content is None else {"content": content})}
    adapted = json.loads(called(dumped(result), wrap=False))
    assert adapted["content"] == [*(content or []), {"type": "text", "text": "[1]"}]


@proves("C84")
@pytest.mark.parametrize("wrap", [True, False])
def test_without_structured_content_nothing_is_wrapped(wrap: bool) -> None:
    """An error of a tool has none."""
    result = {"content": [], "isError": True}
    assert json.loads(called(dumped(result), wrap=wrap)) == result
