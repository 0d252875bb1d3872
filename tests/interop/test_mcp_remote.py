"""`mcpbridge connect` and mcp-remote through the same restart of a remote server."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import bridge
from tests.support.inspector import NODE_MODULES, node
from tests.support.stdio_client import StdioClient, stdio_client, stdio_client_of

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.asyncio]

PROXY = NODE_MODULES / "mcp-remote" / "dist" / "proxy.js"
ASKED = 3
"""Requests while the server is away: the quickest error counts, since the machine may be busy."""
MOST_ASKS = 30
ERROR_WITHIN_S = 1.0


def mcp_remote(url: str, home: Path) -> AbstractAsyncContextManager[StdioClient]:
    """A client of `mcp-remote URL`; the process is killed at the end of the block."""
    assert PROXY.exists(), "mcp-remote is missing: `make interop` installs it"
    env = {"HOME": str(home), "MCP_REMOTE_CONFIG_DIR": str(home)}
    return stdio_client_of((node(), str(PROXY), url, "--transport", "http-only"), env)


async def failed_after(client: StdioClient, method: str) -> float:
    """Ask a server that is away; the seconds until the quickest error. A result is a lie."""
    loop, quickest = asyncio.get_running_loop(), float("inf")
    for _ in range(ASKED):
        began = loop.time()
        answer = await client.ask(method, {"name": "echo", "arguments": {"text": "x"}})
        assert "error" in answer, answer
        quickest = min(quickest, loop.time() - began)
    return quickest


async def asks_until_answered(client: StdioClient) -> int:
    """Ask a server that is back until it answers; the number of requests that took."""
    for number in range(1, MOST_ASKS + 1):
        if "result" in await client.ask("tools/list"):
            return number
    raise AssertionError(f"no answer to {MOST_ASKS} requests after the restart")


async def restarted_under(
    port: int, connected: AbstractAsyncContextManager[StdioClient]
) -> dict[str, Any]:
    """Drive one program through a restart; how it did at each step."""
    # mcp-remote ends if the server is away when it starts; `connect` waits for the client.
    async with bridge("--port", str(port)) as first, connected as client:
        assert "result" in await client.introduce()
        assert "result" in await client.ask("tools/list")
        first.process.kill()
        await first.process.wait()
        # The request that meets the broken connection tells the program that it is broken.
        await client.ask("ping")
        down = {m: await failed_after(client, m) for m in ("tools/list", "tools/call")}
        async with bridge("--port", str(port)):
            asks = await asks_until_answered(client)
            called = await client.call("echo", text="again")
            return {"down_s": down, "asks": asks, "called": called.get("result")}


async def test_connect_is_at_least_as_good_at_each_step(
    tmp_path: Path, unused_tcp_port_factory: Any, record_property: Any
) -> None:
    """An error within a second while the server is away, the same session when it is back."""
    port = unused_tcp_port_factory()
    url = f"http://127.0.0.1:{port}/mcp"
    ours = await restarted_under(port, stdio_client(url))
    theirs = await restarted_under(port, mcp_remote(url, tmp_path))
    record_property("connect", ours)
    record_property("mcp-remote", theirs)
    assert max(ours["down_s"].values()) < ERROR_WITHIN_S
    assert ours["asks"] == 1
    assert ours["asks"] <= theirs["asks"]
    assert ours["called"] == {"content": [{"type": "text", "text": "again"}]}
