"""`mcpbridge connect URL`: a stdio client of one era, and a remote server of the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import bridge, rpc
from tests.support.fake_remote import Got, fake_remote, respond
from tests.support.fake_servers import TOOL, OlderServer, modern_server
from tests.support.modern_client import meta
from tests.support.stdio_client import StdioClient, stdio_client

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

ANSWER = {"action": "accept", "content": {"answer": "yes"}}
ERAS = {"legacy": ("--legacy", "off"), "modern": ("--modern", "off")}
"""What leaves a bridge to the other era alone, by that of the client."""


def reason(answer: dict[str, Any]) -> str:
    """The reason of an error of mcpbridge itself."""
    return str(answer["error"]["data"]["mcpbridge"]["reason"])


async def call(client: StdioClient, era: str, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool as a client of an era."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if era == "modern":
        params["_meta"] = meta()
    return await client.ask("tools/call", params)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_remote_of_the_other_era_restarts(era: str) -> None:
    """Errors while it is away, then the same stdio client works again."""
    async with bridge(*ERAS[era]) as first:
        port = first.url.rpartition(":")[2]
        async with stdio_client(f"{first.url}/mcp") as client:
            if era == "legacy":
                assert (await client.introduce())["result"]["serverInfo"]["name"]
            else:
                found = (await client.ask("server/discover", {"_meta": meta()}))["result"]
                assert "2026-07-28" in found["supportedVersions"]
            added = await call(client, era, "add", a=1, b=2)
            assert added["result"]["structuredContent"] == {"sum": 3}
            assert ("resultType" in added["result"]) == (era == "modern")
            first.process.kill()
            await first.process.wait()
            failed = await call(client, era, "add", a=1, b=2)
            assert failed["error"]["data"]["mcpbridge"]["executed"] in ("no", "maybe")
            assert reason(await call(client, era, "add", a=1, b=2)) == "unreachable"
            async with bridge("--port", port, *ERAS[era]):
                added = await call(client, era, "add", a=2, b=2)
                assert added["result"]["structuredContent"] == {"sum": 4}
                assert await client.end() == 0


async def test_a_legacy_client_is_asked_by_a_modern_server() -> None:
    """A call that needs its user becomes a request of the server; progress comes before answers."""
    async with bridge("--legacy", "off") as running, stdio_client(f"{running.url}/mcp") as client:
        await client.introduce({"elicitation": {}})
        client.write(rpc("q", "tools/call", {"name": "ask", "arguments": {"question": "tea?"}}))
        asked = await client.told("elicitation/create")
        assert "tea?" in asked["params"]["message"]
        client.write({"jsonrpc": "2.0", "id": asked["id"], "result": ANSWER})
        answered = (await client.answer_to("q"))["result"]
        assert answered["content"][0]["text"] == "The answer is: yes"
        params = {"name": "countdown", "arguments": {"seconds": 0.2}, "_meta": {"progressToken": 7}}
        assert "result" in await client.ask("tools/call", params)
        kinds = [each.get("method") or each["id"] for each in client.lines]
        assert kinds.index("notifications/progress") < len(kinds) - 1
        progress = await client.told("notifications/progress")
        assert progress["params"]["progressToken"] == 7


async def test_a_modern_client_cancels_and_listens_at_a_legacy_server() -> None:
    """Its listen is acknowledged under its own id, and a cancelled call has no answer."""
    async with bridge("--modern", "off") as running, stdio_client(f"{running.url}/mcp") as client:
        listen = {"notifications": {"toolsListChanged": True}, "_meta": meta()}
        client.write(rpc("l", "subscriptions/listen", listen))
        told = await client.told("notifications/subscriptions/acknowledged")
        assert told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "l"
        long = {"name": "countdown", "arguments": {"seconds": 600, "steps": 1000}}
        client.write(rpc("long", "tools/call", {**long, "_meta": {**meta(), "progressToken": 1}}))
        await client.told("notifications/progress")
        for request_id in ("long", "l"):
            cancel = {"requestId": request_id}
            client.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
        assert "result" in await call(client, "modern", "add", a=1, b=1)
        assert await client.end() == 0
        assert {"long", "l"} & {each.get("id") for each in client.lines} == set()


async def test_a_modern_client_at_a_server_of_the_older_transport() -> None:
    """HTTP+SSE of 2024-11-05: translated too."""
    async with fake_remote(OlderServer()) as remote, stdio_client(remote.url) as client:
        listed = await client.ask("tools/list", {"_meta": meta()})
        assert listed["result"]["tools"] == [TOOL]
        assert listed["result"]["resultType"] == "complete"


async def test_a_server_that_cannot_be_asked_is_asked_again() -> None:
    """What it speaks is not decided while it is away, or refuses the credentials."""
    closed = True

    async def guarded(got: Got, writer: asyncio.StreamWriter) -> None:
        if closed:
            respond(writer, "401 Unauthorized")
        else:
            await modern_server(got, writer)

    async with fake_remote(guarded) as remote:
        await remote.stop()
        async with stdio_client(remote.url) as client:
            assert reason(await client.ask("tools/list", {"_meta": meta()})) == "unreachable"
            assert reason(await client.introduce()) == "unreachable"
            await remote.start()
            assert reason(await client.ask("tools/list", {"_meta": meta()})) == "remote_refused"
            closed = False
            listed = await client.ask("tools/list", {"_meta": meta()})
            assert listed["result"]["tools"] == [TOOL]
            client.lines.clear()
            assert "serverInfo" in (await client.introduce())["result"]
            assert (await client.ask("tools/list"))["result"] == {"tools": [TOOL]}


async def test_a_rewritten_token_file_is_read_again_in_translation(tmp_path: Path) -> None:
    """After a 401, as for messages that pass unchanged."""
    file, valid = tmp_path / "token", "one"
    file.write_text("one")

    async def guarded(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.headers.get("authorization") == f"Bearer {valid}":
            await modern_server(got, writer)
        else:
            respond(writer, "401 Unauthorized")

    async with (
        fake_remote(guarded) as remote,
        stdio_client(remote.url, "--token-file", str(file)) as client,
    ):
        await client.introduce()
        valid = "two"
        refused = await client.call("hello")
        assert "--token-file" in refused["error"]["message"]
        file.write_text("two")
        assert (await client.call("hello"))["result"]["content"][0]["text"] == "tools/call"
