"""`--allow-tool` and `--deny-tool` from outside: on no way does a denied tool exist."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    initialize,
    messages,
    open_session,
    rpc,
)
from tests.support.modern_client import FORM, Stateless, headers_of
from tests.support.proofs import proves
from tests.support.questioner_bridge import Blocks
from tests.support.raw_http import post, recorded, wire

POLICY = ("--deny-tool", "wipe*", "--allow-tool", "read_*", "--allow-tool", "wipe_it")
FIRST_PAGE = (
    b'"tools": [{"name":"read_it", "inputSchema":{"type":"object"},"n":1.00},'
    b'{"name":"r\\u0065ad_odd","inputSchema":{"type":"object"},"x":"\\ud800"}],"nextCursor":"two"'
)
DENIED = ("wipe_it", "wipe_all", "other", "Read_it", "\nread_", "wipe_\u00e9")


@asynccontextmanager
async def served(kind: str, folder: Path, *words: str) -> AsyncIterator[Stateless]:
    """A bridge with the policy over the toolbox, and a client of it."""
    command = child("toolbox", kind, str(folder))
    era = {"MCPBRIDGE_CHILD_ERA": kind}
    async with (
        bridge(*POLICY, *words, "--", *command, env=era) as running,
        running.client() as client,
    ):
        yield Stateless(running, folder, client)


def unknown(name: str) -> dict[str, Any]:
    """What is said of a tool that does not exist."""
    return {"code": -32602, "message": f"Unknown tool: {name}"}


async def assert_lists(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """All pages of a session's list, the first to the byte."""
    found, cursor, texts = [], None, []
    while True:
        params: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        answer = await client.post("/mcp", json=rpc(1, "tools/list", params), headers=headers)
        texts.append(answer.content)
        (message,) = messages(answer.text)
        found.append([tool["name"] for tool in message["result"]["tools"]])
        cursor = message["result"].get("nextCursor")
        if cursor is None:
            break
    assert found == [["read_it", "read_odd"], [], ["read_last"]]
    assert all(b"wipe" not in text for text in texts)


async def assert_calls(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Denied tools do not exist, odd requests are refused, permitted tools are called."""
    for name in DENIED:
        call = rpc(name, "tools/call", {"name": name, "arguments": {}})
        (message,) = messages((await client.post("/mcp", json=call, headers=headers)).text)
        assert message == {"jsonrpc": "2.0", "id": name, "error": unknown(name)}
    for params in (b"{}", b'{"name":"read_it","name":"wipe_it"}', b'{"Name":"wipe_it"}', b"[1]"):
        body = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":%b}' % params
        head = {**headers, "content-type": "application/json"}
        (message,) = messages((await client.post("/mcp", content=body, headers=head)).text)
        assert message["error"]["code"] == -32602
    for method in ("Tools/Call", "tools/call ", "tools//call", "TOOLS/LIST"):
        call = rpc(2, method, {"name": "wipe_it"})
        (message,) = messages((await client.post("/mcp", json=call, headers=headers)).text)
        assert message["error"]["code"] == -32602, message
        assert "could be read as tools/" in message["error"]["message"]
    call = rpc(3, "tools/call", {"name": "read_it"})
    (message,) = messages((await client.post("/mcp", json=call, headers=headers)).text)
    assert message["result"]["content"][0]["text"] == "did read_it"


def assert_untouched(folder: Path) -> None:
    """No child has read a word of what is denied."""
    record = recorded(folder)
    assert b"read_it" in record
    for trace in (b"wipe", b"Read_it", b'"other"', b"\\nread_"):
        assert trace not in record


async def over_one_stream(running: RunningBridge) -> list[Any]:
    """A list and a denied call by the transport of 2024-11-05; the answers."""
    async with (
        running.client() as client,
        client.stream("GET", "/sse", headers={"accept": "text/event-stream"}) as response,
    ):
        blocks = Blocks(response)
        first = await blocks.next()
        assert first is not None
        sent = (
            initialize(0, "2024-11-05"),
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            rpc(1, "tools/list"),
            rpc(2, "tools/call", {"name": "wipe_it"}),
            # A server may obey a call that wants no answer.
            {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "wipe_it"}},
            {"jsonrpc": "2.0", "method": "Tools/call", "params": {"name": "wipe_it"}},
            rpc(3, "tools/call", {"name": "read_it"}),
        )
        for message in sent:
            answer = await client.post(first.fields["data"], json=message)
            assert answer.status_code == 202
        return [json.loads(block.fields["data"]) for block in await blocks.some(4)][1:]


async def on_the_fast_path(running: RunningBridge, headers: dict[str, str]) -> None:
    """Under a head that the bridge knows by then, a denied call is still denied."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    async with wire(running.port) as connection:
        for name in ("read_it",) * 3 + ("wipe_it", "read_it", "wipe_it"):
            body = json.dumps(rpc(name, "tools/call", {"name": name})).encode()
            await connection.send(post(body, *lines))
            answer = json.loads((await connection.response()).body)
            if name == "wipe_it":
                assert answer["error"] == unknown(name)
            else:
                assert answer["result"]["content"][0]["text"] == "did read_it"
        await connection.send(post(json.dumps(rpc(9, "tools/list")).encode(), *lines))
        assert FIRST_PAGE in (await connection.response()).body


@proves("fault 136")
@pytest.mark.slow
async def test_a_handshake_child_is_never_asked_for_a_denied_tool(tmp_path: Path) -> None:
    """In a session, outside of any, in a batch, on one stream, on the fast path."""
    async with served("legacy", tmp_path) as stage:
        session = await open_session(stage.client)
        for headers in (session, ACCEPT):
            answer = await stage.client.post("/mcp", json=rpc(1, "tools/list"), headers=headers)
            assert FIRST_PAGE in answer.content
            await assert_lists(stage.client, headers)
            await assert_calls(stage.client, headers)
        await on_the_fast_path(stage.bridge, session)
        old = await open_session(stage.client, "2025-03-26")
        batch = [
            rpc(1, "tools/call", {"name": "wipe_it"}),
            rpc(2, "tools/list"),
            rpc(3, "tools/call", {"name": "read_it"}),
            {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "wipe_it"}},
        ]
        found = messages((await stage.client.post("/mcp", json=batch, headers=old)).text)
        flat = [each for part in found for each in (part if isinstance(part, list) else [part])]
        by_id = {each["id"]: each for each in flat}
        assert by_id[1]["error"] == unknown("wipe_it")
        assert [tool["name"] for tool in by_id[2]["result"]["tools"]] == ["read_it", "read_odd"]
        assert "result" in by_id[3]
        answers = {each["id"]: each for each in await over_one_stream(stage.bridge)}
        names = [tool["name"] for tool in answers[1]["result"]["tools"]]
        assert (names, answers[2]["error"]) == (["read_it", "read_odd"], unknown("wipe_it"))
        metrics = (await stage.client.get("/metrics")).text
        assert "denied_tool" in metrics
    assert_untouched(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["legacy", "modern"])
async def test_clients_of_the_stateless_revision_see_no_denied_tool(
    kind: str, tmp_path: Path
) -> None:
    """By a child of either era; no header of a denied tool is asked for, no child is started."""
    async with served(kind, tmp_path) as stage:
        names = []
        cursors: tuple[dict[str, str], ...] = ({}, {"cursor": "two"}, {"cursor": "three"})
        for cursor in cursors:
            result = await stage.result("tools/list", cursor)
            names.append([tool["name"] for tool in result["tools"]])
        assert names == [["read_it", "read_odd"], [], ["read_last"]]
        for name in DENIED:
            params = {"name": name, "arguments": {"region": "eu"}}
            assert await stage.error("tools/call", params) == unknown(name)
            assert await stage.error("tools/call", params, FORM) == unknown(name)
        assert len(await stage.bridge.logged("child.started")) == 1
        for _ in range(3):
            result = await stage.result("tools/call", {"name": "read_it"})
            assert result["content"][0]["text"] == "did read_it"
        message = stage.request("tools/call", {"name": "read_it", "Name": "wipe_it"})
        answer = await stage.client.post("/mcp", json=message, headers=headers_of(message))
        assert answer.json()["error"]["code"] == -32602
    assert_untouched(tmp_path)


@pytest.mark.slow
async def test_a_session_on_a_child_without_sessions_sees_no_denied_tool(tmp_path: Path) -> None:
    """What is translated is filtered too."""
    async with served("modern", tmp_path) as stage:
        session = await open_session(stage.client)
        await assert_lists(stage.client, session)
        await assert_calls(stage.client, session)
    assert_untouched(tmp_path)


@pytest.mark.slow
async def test_without_a_policy_every_tool_is_there(tmp_path: Path) -> None:
    """Lists and calls pass as they came, odd ones too."""
    command = child("toolbox", "legacy", str(tmp_path))
    async with bridge("--", *command) as running, running.client() as client:
        answer = await client.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
        assert b'"n":1.00} ,{"inputSchema":{"type":"object"},"name":"wipe_it"},{' in answer.content
        for params in ({"name": "wipe_it"}, {}):
            call = rpc(2, "tools/call", params)
            answer = await client.post("/mcp", json=call, headers=ACCEPT)
            assert answer.json()["result"]["content"][0]["text"] == f"did {params.get('name')}"
