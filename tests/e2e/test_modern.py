"""Clients of 2026-07-28: the ladder of checks, results and errors, streams and cancellation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import ACCEPT, eventually, initialize, messages
from tests.support.modern_client import (
    ALL,
    DATE,
    FORM,
    RESERVED,
    Leave,
    Stateless,
    asking,
    form,
    header_value,
    headers_of,
    meta,
    progress,
    remark,
    retry_of,
    serving,
    text_of,
)
from tests.support.proofs import proves
from tests.support.questioner_bridge import Blocks
from tests.support.raw_http import exchanged, post

pytestmark = pytest.mark.asyncio(loop_scope="module")
CACHEABLE = ("server/discover", "tools/list", "resources/read")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["legacy", "modern"])
async def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stateless]:
    """A bridge over a server of one era that is known."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    async with serving(kind, folder, "--child-era", kind) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stateless]:
    """A bridge over a server with a handshake."""
    folder = tmp_path_factory.mktemp("old")
    async with serving("legacy", folder, "--child-era", "legacy") as served:
        yield served


async def refused(
    served: Stateless, message: Any, status: int, code: int, **changed: str | None
) -> Any:
    """The error of a request that is refused, and that no child has read."""
    response = await served.send(message, **changed)
    body = response.json()
    assert (response.status_code, body["error"]["code"]) == (status, code), response.text
    assert body["id"] == message["id"]
    assert response.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in response.headers
    return body["error"]


@proves("C19", "C41")
async def test_a_request_needs_nothing_before_it(either: Stateless) -> None:
    """One POST, one answer, no session; garbage in the headers of other eras does not matter."""
    message = either.request("tools/list", id="first")
    response = await either.send(message)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in response.headers
    assert response.json()["result"]["tools"][0]["name"] == "do"
    garbage = {"mcp_session_id": "nobody", "last_event_id": "x_1"}
    response = await either.send({**message, "id": 2}, **garbage)
    assert (response.status_code, response.json()["id"]) == (200, 2)


@proves("C19", "C78")
@pytest.mark.parametrize("request_id", [0, "", "1", 1, 2**53, -1])
async def test_ids_come_back_as_they_are(either: Stateless, request_id: Any) -> None:
    """An answer bears the very id, of its type."""
    message = either.request("tools/list", id=request_id)
    assert (await either.send(message)).json()["id"] == request_id


@proves("C20")
async def test_discovery_tells_revisions_and_capabilities(either: Stateless) -> None:
    """The result is whole, and what the server says of itself is in its `_meta` alone."""
    result = await either.result("server/discover")
    assert result["supportedVersions"][0] == DATE
    assert result["supportedVersions"] == sorted(result["supportedVersions"], reverse=True)
    assert {"tools", "prompts", "resources", "logging"} == set(result["capabilities"])
    assert result["resultType"] == "complete"
    assert type(result["ttlMs"]) is int
    assert result["ttlMs"] >= 0
    assert result["cacheScope"] == "private"
    assert result["_meta"][RESERVED + "serverInfo"]["name"] == "eras"
    assert "serverInfo" not in result
    assert "protocolVersion" not in result


@proves("C21")
@pytest.mark.parametrize("verb", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "headers", [{"mcp-protocol-version": DATE}, {"mcp-method": "tools/list"}], ids=str
)
async def test_only_post_exists(either: Stateless, verb: str, headers: dict[str, str]) -> None:
    """GET and DELETE of this revision are 405 and told what is allowed."""
    response = await either.client.request(verb, "/mcp", headers={**ACCEPT, **headers})
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    with_session = {**ACCEPT, **headers, "mcp-session-id": "x"}
    assert (await either.client.request(verb, "/mcp", headers=with_session)).status_code == 405


@proves("fault 77", "C22", "C25", "C78")
@pytest.mark.parametrize(
    ("in_header", "in_body"),
    [
        ("2025-11-25", DATE),
        ("2099-01-01", DATE),
        (DATE, "2099-01-01"),
        ("1900-01-01", "2099-01-01"),
        (Leave, DATE),
        (Leave, "2099-01-01"),
        ("", DATE),
        ("", ""),
        ("2026-07-28x", DATE),
    ],
)
async def test_header_and_body_name_one_revision(
    either: Stateless, in_header: str | None, in_body: str
) -> None:
    """Two revisions, or one in the body alone, are a mismatch, known or not."""
    message = either.request("tools/list", id="v", **{RESERVED + "protocolVersion": in_body})
    await refused(either, message, 400, -32020, mcp_protocol_version=in_header)


@proves("fault 77", "C23")
@pytest.mark.parametrize("date", ["2099-01-01", "1900-01-01", "DRAFT-2026-v1"])
async def test_a_revision_nobody_serves_is_refused_with_those_that_are(
    either: Stateless, date: str
) -> None:
    """Header and body agree on a revision that is unknown here."""
    message = either.request("tools/list", **{RESERVED + "protocolVersion": date})
    error = await refused(either, message, 400, -32022, mcp_protocol_version=date)
    assert error["data"]["requested"] == date
    discovered = await either.result("server/discover")
    assert error["data"]["supported"]
    assert set(error["data"]["supported"]) <= set(discovered["supportedVersions"])


@proves("C24")
@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"_meta": {}},
        {"_meta": None},
        {"_meta": []},
        {"_meta": {RESERVED + "protocolVersion": DATE}},
        {"_meta": {RESERVED + "clientCapabilities": {}}},
        {"_meta": {RESERVED + "protocolVersion": 20260728, RESERVED + "clientCapabilities": {}}},
        {"_meta": {**meta(), RESERVED + "clientCapabilities": []}},
        {"_meta": {**meta(), RESERVED + "clientCapabilities": None}},
        {"_meta": {**meta(), RESERVED + "protocolVersion": None}},
        {"_meta": {**meta(), RESERVED + "logLevel": "verbose"}},
        {"_meta": {**meta(), RESERVED + "logLevel": 3}},
    ],
    ids=str,
)
async def test_the_envelope_must_be_there(either: Stateless, params: Any) -> None:
    """Without both keys, of their types, the parameters are invalid."""
    message = {"jsonrpc": "2.0", "id": "e", "method": "tools/list"}
    message |= {} if params is None else {"params": params}
    await refused(either, message, 400, -32602)


@proves("C24")
async def test_a_client_need_not_say_who_it_is(either: Stateless) -> None:
    """`clientInfo` is optional, and a strange one does not matter."""
    message = either.request("tools/list")
    del message["params"]["_meta"][RESERVED + "clientInfo"]
    assert (await either.send(message)).status_code == 200
    message["params"]["_meta"][RESERVED + "clientInfo"] = 7
    assert (await either.send(message)).status_code == 200


@proves("C25")
async def test_a_claim_is_seen_however_it_is_spelled(either: Stateless) -> None:
    """Escaped solidi and characters in the key are the same key: without a header it is -32020."""
    message = json.dumps(either.request("tools/list", id=5))
    for spelled in ("io.modelcontextprotocol\\/", "io.m\\u006fdelcontextprotocol/"):
        body = message.replace(RESERVED, spelled)
        head = {**ACCEPT, "content-type": "application/json", "mcp-method": "tools/list"}
        response = await either.client.post("/mcp", content=body, headers=head)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)
        head["mcp-protocol-version"] = DATE
        response = await either.client.post("/mcp", content=body, headers=head)
        assert response.status_code == 200


@proves("fault 77", "C26")
@pytest.mark.parametrize("method", [Leave, "tools/call", "Tools/list", "tools/list ,x", ""])
async def test_the_method_header_must_match(either: Stateless, method: str | None) -> None:
    """`Mcp-Method` is missing, another, or of other case."""
    await refused(either, either.request("tools/list"), 400, -32020, mcp_method=method)


@proves("C26")
async def test_names_of_headers_know_no_case(either: Stateless) -> None:
    """What a header is called may be in capitals, and blanks around values do not count."""
    body = json.dumps(either.request("tools/list", id=1)).encode()
    head = ("Accept: */*", f"MCP-PROTOCOL-VERSION:  {DATE} ", "mcp-METHOD: \t tools/list")
    assert (await exchanged(either.bridge.port, post(body, *head))).status == 200


@proves("fault 77", "C27")
@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("tools/call", {"name": "do"}, Leave),
        ("tools/call", {"name": "do"}, "Do"),
        ("tools/call", {"name": "do"}, ""),
        ("tools/call", {"name": "ro\u00fbted"}, "=?base64?cm/Du3RlZA?="),
        ("tools/call", {"name": "ro\u00fbted"}, "=?base64?!!!?="),
        ("tools/call", {"name": "ro\u00fbted"}, "=?base64?/w==?="),
        ("tools/call", {"name": "do"}, "=?base64?ZG8="),
        ("tools/call", {"name": "do"}, "=?BASE64?ZG8=?="),
        ("prompts/get", {"name": "p"}, Leave),
        ("prompts/get", {"name": "p"}, "q"),
        ("resources/read", {"uri": "file:///a"}, Leave),
        ("resources/read", {"uri": "file:///a"}, "file:///b"),
    ],
)
async def test_the_name_header_must_match(
    either: Stateless, method: str, params: Any, name: str | None
) -> None:
    """`Mcp-Name` is missing, another, or not decodable."""
    await refused(either, either.request(method, params), 400, -32020, mcp_name=name)


@proves("C27")
@pytest.mark.parametrize("params", [{}, {"name": 7}, {"name": None}], ids=str)
async def test_a_name_that_is_missing_in_the_body_is_invalid(
    either: Stateless, params: Any
) -> None:
    """The header cannot stand in for the parameter."""
    await refused(either, either.request("tools/call", params), 400, -32602, mcp_name="do")


@proves("C27")
async def test_names_may_be_encoded(either: Stateless) -> None:
    """Any text may travel in base64; where a method has no name the header does not matter."""
    for encoded in ("=?base64?ZG8=?=", "do"):
        message = either.request("tools/call", {"name": "do", "arguments": {}})
        assert (await either.send(message, mcp_name=encoded)).status_code == 200
    read = either.request("resources/read", {"uri": "ünï://x"})
    assert headers_of(read)["mcp-name"].startswith("=?base64?")
    assert (await either.send(read)).status_code == 200
    assert (await either.send(either.request("tools/list"), mcp_name="x")).status_code == 200


@proves("fault 76", "C28", "C78")
@pytest.mark.parametrize(
    "method",
    [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/get",
        "x/unknown",
        "tools",
    ],
)
async def test_what_this_revision_does_not_have_is_not_found(
    either: Stateless, method: str
) -> None:
    """Methods of the handshake, and unknown ones, are 404 with -32601."""
    before = len(either.heard(method))
    params = {"uri": "a:b", "level": "info", "taskId": "t"}
    await refused(either, either.request(method, params), 404, -32601, mcp_name="t")
    asked = {"x/unknown", "tools"} | ({"tasks/get"} if either.heard("initialize") == [] else set())
    assert len(either.heard(method)) - before == (method in asked)


@proves("C22")
async def test_initialize_that_claims_this_revision_in_its_body_is_a_mismatch(
    either: Stateless,
) -> None:
    """`initialize` does not exist there."""
    claim = {"_meta": {RESERVED + "protocolVersion": DATE}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": claim}
    error = await refused(either, body, 400, -32020)
    assert DATE in error["message"]


async def test_initialize_is_judged_by_its_body_whatever_the_header_names(
    either: Stateless,
) -> None:
    """A client that falls back may still send the header of what it tried first."""
    for date in (DATE, "2099-01-01", "nonsense", "", "2024-11-05"):
        headers = {**ACCEPT, "mcp-protocol-version": date, "mcp-method": "initialize"}
        answer = await either.client.post("/mcp", json=initialize(1), headers=headers)
        assert answer.status_code == 200, answer.text
        (reply,) = messages(answer.text)
        assert reply["result"]["protocolVersion"] == "2025-06-18"
        assert "mcp-session-id" in answer.headers


@proves("C29")
async def test_batches_and_answers_are_refused(either: Stateless) -> None:
    """Neither an array nor an answer is a message of a client."""
    one = either.request("tools/list")
    head = headers_of(one)
    for body in ([one], [one, one], [{"jsonrpc": "2.0", "id": 1, "result": {}}]):
        response = await either.client.post("/mcp", json=body, headers=head)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)
    # The claim alone decides, too.
    response = await either.client.post("/mcp", json=[one], headers=ACCEPT)
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)
    error = {"code": 1, "message": "x"}
    for said in ('"result":{}', f'"error":{json.dumps(error)}'):
        answer = json.loads(f'{{"jsonrpc":"2.0","id":1,{said}}}')
        response = await either.client.post("/mcp", json=answer, headers=head)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)


@proves("C51")
async def test_notifications_are_taken_and_have_no_effect(either: Stateless) -> None:
    """Whose call would a cancellation cancel? 202, and the child reads nothing of it."""
    for method in ("notifications/cancelled", "notifications/x"):
        body = {"jsonrpc": "2.0", "method": method, "params": {"requestId": 1, "_meta": meta()}}
        response = await either.client.post("/mcp", json=body, headers=headers_of(body))
        assert (response.status_code, response.content) == (202, b"")
    await either.result("tools/list")
    assert either.heard("notifications/x") == []


@proves("C98")
@pytest.mark.parametrize(
    "doubled",
    [
        ("Mcp-Method: tools/list", "Mcp-Method: tools/list"),
        ("MCP-Protocol-Version: 2026-07-28", "mcp-protocol-version: 2026-07-28"),
        ("Mcp-Name: a", "Mcp-Name: a"),
        ("Mcp-Param-A: 1", "mcp-param-a: 1"),
    ],
)
async def test_a_routing_header_stands_once(either: Stateless, doubled: tuple[str, str]) -> None:
    """Two of a name are refused even where they say the same."""
    body = json.dumps(either.request("tools/list", id=9)).encode()
    base = {"accept": "*/*", "mcp-protocol-version": DATE, "mcp-method": "tools/list"}
    given = {line.partition(":")[0].lower() for line in doubled}
    lines = [f"{name}: {value}" for name, value in base.items() if name not in given]
    heard = await exchanged(either.bridge.port, post(body, *lines, *doubled))
    assert (heard.status, heard.error["code"]) == (400, -32020)
    assert json.loads(heard.body)["id"] == 9


@proves("C30")
async def test_each_result_tells_its_type(either: Stateless) -> None:
    """`resultType` on all; how long it may be kept on those that may be kept."""
    calls: dict[str, Any] = {
        "tools/list": {},
        "tools/call": {"name": "do", "arguments": {}},
        "prompts/get": {"name": "p"},
        "resources/read": {"uri": "a:b"},
        "server/discover": {},
    }
    native = any(line.get("method") == "server/discover" for line in either.heard())
    for method, params in calls.items():
        result = await either.result(method, params)
        assert result["resultType"] == "complete"
        if not native or method in ("tools/list", "server/discover"):
            assert ("ttlMs" in result) == (method in CACHEABLE), method
            assert ("cacheScope" in result) == (method in CACHEABLE), method


@proves("C30", "C51")
async def test_what_a_handshake_child_answers_is_made_whole(old: Stateless) -> None:
    """Lists are private and not kept, tasks are gone, the server says who it is."""
    result = await old.result("tools/list", traceparent="00-a-b-01")
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")
    assert all("execution" not in tool for tool in result["tools"])
    assert result["_meta"][RESERVED + "serverInfo"]["name"] == "eras"
    # Trace keys pass; nothing of the envelope does. The bridge asks for the list as well, without
    # params.
    heard = [each["params"] for each in old.heard("tools/list") if "params" in each]
    assert heard[-1] == {"_meta": {"traceparent": "00-a-b-01"}}
    await old.result("tools/call", {"name": "do", "requestStat": "kept"})
    assert old.heard("tools/call")[-1]["params"] == {"name": "do", "requestStat": "kept"}


@proves("C43")
@pytest.mark.parametrize(
    ("code", "arrives", "status"),
    [
        (-32002, -32602, 200),
        (-32602, -32602, 200),
        (-32603, -32603, 200),
        (-32601, -32601, 404),
        (-32001, -32001, 200),
        (-32019, -32019, 200),
        (-32020, -32603, 200),
        (-32022, -32603, 200),
        (-32099, -32603, 200),
        (-32100, -32100, 200),
        (0, 0, 200),
        (7, 7, 200),
    ],
)
async def test_codes_of_older_revisions_are_translated(
    old: Stateless, code: int, arrives: int, status: int
) -> None:
    """What has another meaning in this revision does not get through."""
    error = {"code": code, "message": "why", "data": {"uri": "a:b"}}
    params = {"name": "do", "arguments": {"error": error}}
    for capabilities in ({}, FORM):
        response = await old.post("tools/call", params, capabilities)
        assert (response.status_code, response.json()["error"]["code"]) == (status, arrives)
        if code == -32002:
            assert response.json()["error"]["data"] == {"uri": "a:b"}
        if arrives == -32603 != code:
            assert response.json()["error"]["data"]["original"] == error


@proves("C44")
@pytest.mark.slow
async def test_what_is_not_advertised_is_not_found(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The child is not asked for a family of methods that it does not have."""
    folder = tmp_path_factory.mktemp("shy")
    era = ("--child-era", "legacy")
    async with serving("legacy", folder, *era, manners=("shy",)) as served:
        for method in ("prompts/list", "tools/list", "resources/list", "completion/complete"):
            await refused(served, served.request(method), 404, -32601)
        await refused(served, served.request("tools/call", {"name": "do"}), 404, -32601)
        # What comes after them reaches it.
        await served.error("x/unknown")
        assert {line["method"] for line in served.heard()} == {
            "initialize",
            "notifications/initialized",
            "x/unknown",
        }
    folder = tmp_path_factory.mktemp("aged")
    async with serving("legacy", folder, *era, manners=("old",)) as served:
        await refused(served, served.request("prompts/list"), 404, -32601)
        # 2024-11-05 has completion and no capability for it.
        await served.error("completion/complete")
        assert len(served.heard("completion/complete")) == 1


@proves("C20", "C44")
@pytest.mark.slow
async def test_capabilities_that_are_none_break_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A server that says null offers nothing."""
    folder = tmp_path_factory.mktemp("plain")
    async with serving("plain", folder, "--child-era", "legacy") as served:
        assert (await served.result("server/discover"))["capabilities"] == {}
        await refused(served, served.request("tools/list"), 404, -32601)
        ack = served.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        async with served.stream(ack) as events:
            first = await events.next()
            assert first["params"]["notifications"] == {}


GOOD = {"mcp_param_region": "eu", "mcp_param_zone": "42", "mcp_param_dry": "true"}
ARGUMENTS = {"region": "eu", "at": {"zone": 42}, "dry": True}


@proves("C42")
@pytest.mark.parametrize("name", ["headed", "ro\u00fbted"])
@pytest.mark.parametrize(
    ("arguments", "changed", "good"),
    [
        (ARGUMENTS, {}, True),
        (ARGUMENTS, {"mcp_param_zone": "42.0"}, True),
        ({**ARGUMENTS, "region": "é"}, {"mcp_param_region": header_value("é")}, True),
        (ARGUMENTS, {"mcp_param_other": "x"}, True),
        ({**ARGUMENTS, "region": None}, {"mcp_param_region": Leave}, True),
        ({}, dict.fromkeys(GOOD, Leave), True),
        (ARGUMENTS, {"mcp_param_region": Leave}, False),
        (ARGUMENTS, {"mcp_param_region": "EU"}, False),
        (ARGUMENTS, {"mcp_param_zone": "43"}, False),
        (ARGUMENTS, {"mcp_param_zone": "nan"}, False),
        (ARGUMENTS, {"mcp_param_zone": Leave}, False),
        (ARGUMENTS, {"mcp_param_dry": "True"}, False),
        (ARGUMENTS, {"mcp_param_region": "=?base64?*?="}, False),
        ({**ARGUMENTS, "region": None}, {}, False),
    ],
)
async def test_arguments_are_repeated_in_headers(
    either: Stateless, name: str, arguments: Any, changed: Any, good: bool
) -> None:
    """As the tool's schema wants it, and truly; what is not annotated does not matter."""
    message = either.request("tools/call", {"name": name, "arguments": arguments})
    response = await either.send(message, **{**GOOD, **changed})
    if good:
        assert response.status_code == 200, response.text
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)


@proves("C42")
@pytest.mark.slow
async def test_a_list_that_changes_while_it_is_read_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A change that comes in one write with the list makes the list an old one."""
    folder = tmp_path_factory.mktemp("changing")
    era = ("--child-era", "legacy")
    async with serving("legacy", folder, *era, manners=("changing",)) as served:
        # The bridge asks for the list once by itself.
        await served.bridge.logged("serve.ready")
        await served.do()
        await served.do()
        assert len(served.heard("tools/list")) == 3


@proves("fault 46", "fault 62", "C45", "C14")
async def test_equal_ids_and_tokens_do_not_meet(either: Stateless) -> None:
    """Calls with one id and one token at the same time get their own answers."""

    async def call(number: int, capabilities: Any) -> None:
        wishes = {"say": [progress(number)], "mark": number}
        message = either.request(
            "tools/call", {"name": "do", "arguments": wishes}, capabilities, id="same", token="t"
        )
        response = await either.send(message)
        told, answer = messages(response.text)
        assert told["params"] == {"progressToken": "t", "progress": number}
        assert answer["id"] == "same"
        assert text_of(answer["result"])["params"]["arguments"]["mark"] == number

    await asyncio.gather(*(call(n, {} if n % 4 else FORM) for n in range(12)))


@proves("C41", "C91")
async def test_a_stream_has_neither_ids_nor_times(either: Stateless) -> None:
    """Nothing of this revision can be resumed; events carry messages and no more."""
    wishes = {"say": [progress(1), progress(2)]}
    message = either.request("tools/call", {"name": "do", "arguments": wishes}, token=7)
    async with either.client.stream(
        "POST", "/mcp", json=message, headers=headers_of(message)
    ) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-cache" in response.headers["cache-control"]
        assert "mcp-session-id" not in response.headers
        blocks = Blocks(response)
        found = []
        while (block := await blocks.next()) is not None:
            assert set(block.fields) <= {"event", "data"}
            found.append(block.message)
    assert [f["params"]["progress"] for f in found[:2]] == [1, 2]
    assert {f["params"]["progressToken"] for f in found[:2]} == {7}
    assert found[2]["id"] == message["id"]


@proves("C38")
@pytest.mark.parametrize("capabilities", [{}, FORM], ids=str)
async def test_the_log_is_for_those_who_asked_for_it(old: Stateless, capabilities: Any) -> None:
    """None without a level, none below it, and those above it on the call's stream."""
    said = [remark(level, level) for level in ("debug", "info", "warning", "error")]
    params = {"name": "do", "arguments": {"say": said}}
    silent = await old.post("tools/call", params, capabilities)
    assert silent.headers["content-type"] == "application/json"
    for level, heard in (("warning", ["warning", "error"]), ("debug", 4), ("emergency", [])):
        response = await old.post("tools/call", params, capabilities, level=level)
        found = [m["params"]["data"] for m in messages(response.text)[:-1]]
        assert found == heard or len(found) == heard
    # A level that was set for one call is not in the way of the next without one.
    assert len(messages((await old.post("tools/call", params, capabilities)).text)) == 1


@proves("fault 56", "C12")
@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("capabilities", [{}, FORM], ids=str)
async def test_closing_the_connection_cancels(
    either: Stateless, capabilities: Any, streams: bool
) -> None:
    """The child reads its own cancellation id, be it that a stream or JSON is due."""
    name = f"{streams}{capabilities}"
    wishes: dict[str, Any] = {"hold": name, **({"say": [progress(1)]} if streams else {})}
    message = either.request(
        "tools/call", {"name": "do", "arguments": wishes}, capabilities, token="t"
    )
    cancelled = len(either.heard("notifications/cancelled"))
    if streams:
        async with either.stream(message) as events:
            assert (await events.next())["params"]["progress"] == 1
    else:
        pending = asyncio.create_task(either.send(message, accept="application/json"))
        await eventually(lambda: bool(held_by(either, name)), "it is held")
        pending.cancel()
    await either.until_heard("notifications/cancelled", cancelled + 1)
    last = either.heard("notifications/cancelled")
    numbers = [line["params"]["requestId"] for line in last]
    assert held_by(either, name)[0]["id"] in numbers
    assert len(last) == cancelled + 1
    for lines in either.processes().values():
        # Nothing else of a call that is over, and no answer of any kind.
        assert all("method" in line for line in lines)


def held_by(served: Stateless, name: str) -> list[dict[str, Any]]:
    """The calls that a child holds by a name, as it read them."""
    calls = served.heard("tools/call")
    return [c for c in calls if c["params"].get("arguments", {}).get("hold") == name]


@proves("C31", "C33")
@pytest.mark.parametrize(
    ("method", "ability"),
    [
        ("elicitation/create", "elicitation"),
        ("sampling/createMessage", "sampling"),
        ("roots/list", "roots"),
        ("ping", None),
    ],
)
async def test_no_stream_ever_carries_a_request(
    old: Stateless, method: str, ability: str | None
) -> None:
    """What the child asks is a result or an error, never a question on a stream."""
    question = {"method": method, "params": {"message": "m", "requestedSchema": {}}}
    params = asking([question], say=[progress(1)])
    answers = []
    for capabilities in ({}, {ability: {}} if ability else ALL):
        response = await old.post("tools/call", params, capabilities, token="t")
        found = messages(response.text)
        assert all("id" not in m for m in found[:-1])
        assert "method" not in found[-1]
        answers.append(found[-1]["result"])
    assert answers[0]["resultType"] == "complete"
    if ability is None:
        assert all(text_of(a)["answers"] == [{}] for a in answers)
    else:
        assert text_of(answers[0])["answers"][0]["code"] in (-32601, -32603, -32600)
        assert answers[1]["resultType"] == "input_required"
        retry = retry_of(params, answers[1], i1={"action": "cancel"})
        await old.result("tools/call", retry, {ability: {}})


@proves("C36")
@pytest.mark.slow
async def test_a_list_never_asks_for_input(old: Stateless) -> None:
    """A child that asks while it lists is told that no client can be asked."""
    cursor = "do:" + json.dumps({"ask": [[form()]]})
    result = await old.result("tools/list", {"cursor": cursor}, ALL)
    assert result["resultType"] == "complete"
    assert "code" in text_of(result)["answers"][0]


@proves("C93")
@pytest.mark.parametrize(
    "capabilities", ['{"elicitation":{"x":"\\ud800"}}', '{"sampling":{"n":1e999}}']
)
async def test_capabilities_that_no_library_reads_break_nothing(
    old: Stateless, capabilities: str
) -> None:
    """A lone surrogate or a number beyond any machine's in them is not an error of ours."""
    body = json.dumps(old.request("tools/call", {"name": "do", "arguments": {}}, {"@": 1}, id=3))
    head = {**headers_of(json.loads(body)), "content-type": "application/json"}
    content = body.replace('{"@": 1}', capabilities)
    response = await old.client.post("/mcp", content=content, headers=head)
    assert response.status_code in (200, 400)
    assert response.json()["id"] == 3


@proves("C93")
@pytest.mark.parametrize("capabilities", [{}, FORM], ids=str)
async def test_members_that_differ_in_case_are_refused(
    either: Stateless, capabilities: Any
) -> None:
    """What some server could read otherwise gets an error, and nothing is left behind."""
    message = either.request("tools/call", {"name": "do", "arguments": {}}, capabilities)
    message["params"]["_meta"] |= {"progressToken": 1, "ProgressToken": 2}
    assert (await either.send(message)).json()["error"]["code"] in (-32600, -32602)
    assert (await either.do(capabilities))["resultType"] == "complete"


@proves("C60")
@pytest.mark.parametrize("date", ["2099-01-01", "2026-07-27"])
async def test_a_header_of_no_revision_is_refused(either: Stateless, date: str) -> None:
    """A body that claims nothing, under a revision that is not one, is refused."""
    message = either.request("tools/list", id="n")
    del message["params"]["_meta"]
    response = await either.send(message, mcp_protocol_version=date)
    assert response.status_code == 400
    assert response.json()["id"] == "n"


@proves("C94")
async def test_accept_is_obeyed(either: Stateless) -> None:
    """JSON only is JSON whatever came before; neither is 406, a listen without stream too."""
    wishes = {"say": [progress(1)]}
    params = {"name": "do", "arguments": wishes}
    message = either.request("tools/call", params, token="t")
    only = await either.send(message, accept="application/json")
    assert only.headers["content-type"] == "application/json"
    assert only.json()["id"] == message["id"]
    assert (await either.send(message, accept="text/html")).status_code == 406
    events = await either.send(message, accept="text/event-stream")
    assert events.headers["content-type"] == "text/event-stream"
    listen = either.request("subscriptions/listen", {"notifications": {}})
    assert (await either.send(listen, accept="application/json")).status_code == 406
