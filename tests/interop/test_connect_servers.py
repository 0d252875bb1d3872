"""`mcpbridge connect` to servers that others made: the older transport, and 2026-07-28 alone.

The reference server speaks HTTP+SSE of 2024-11-05 by the TypeScript SDK, the other one nothing but
2026-07-28 over Streamable HTTP by the Python SDK 2.x.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.interop.test_interop import everything_server
from tests.support.bridge_process import interpreter as interpreter_of_bridge
from tests.support.inspector import NODE_MODULES, node
from tests.support.modern_client import meta
from tests.support.sdk_clients import python_clients, toured
from tests.support.sdk_servers import (
    PEERS,
    Server,
    failed,
    in_2026,
    interpreter,
    refused,
    said,
    shown,
)
from tests.support.stdio_client import StdioClient, stdio_client

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.asyncio]

STARTED_WITHIN_S = 60.0
EVERYTHING = NODE_MODULES / "@modelcontextprotocol/server-everything/dist/index.js"
ON_LOOPBACK = """\
import { Server } from 'node:net';
const { listen } = Server.prototype;
Server.prototype.listen = function (port, ...more) {
  return listen.call(this, port, '127.0.0.1', ...more);
};
"""
"""Without it the reference server listens on every address of the machine."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """A server that others made, and what is asked of it."""

    command: Sequence[str]
    says: str
    """A part of the line by which it says that it listens."""
    url: str
    env: Mapping[str, str]
    name: str
    tool: tuple[str, Mapping[str, Any]]
    answer: str
    """The text that the tool answers."""


def everything(port: int) -> Remote:
    """The reference server by the older transport."""
    preload = ("--import", f"data:text/javascript,{ON_LOOPBACK}")
    return Remote(
        (node(), *preload, str(EVERYTHING), "sse"),
        f"Server is running on port {port}",
        f"http://127.0.0.1:{port}/sse",
        {"PORT": str(port)},
        "mcp-servers/everything",
        ("echo", {"message": "tea"}),
        "Echo: tea",
    )


def modern_only(port: int) -> Remote:
    """A server of the SDK 2.x that refuses the handshake."""
    url = f"http://127.0.0.1:{port}/mcp"
    words = ("--http", "--modern", "--port", str(port))
    return Remote(
        (interpreter(2), str(PEERS / "server_referees2.py"), *words),
        url,
        url,
        {},
        "referees",
        ("test_simple_text", {}),
        "This is a simple text response for testing.",
    )


MADE: Mapping[str, Callable[[int], Remote]] = {"older": everything, "modern": modern_only}


@asynccontextmanager
async def listening(remote: Remote) -> AsyncIterator[None]:
    """The server until the end of the block; then it is killed."""
    process = await asyncio.create_subprocess_exec(
        *remote.command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env={**os.environ, **remote.env}
    )
    assert process.stdout is not None
    reading = None
    try:
        async with asyncio.timeout(STARTED_WITHIN_S):
            while remote.says.encode() not in (line := await process.stdout.readline()):
                assert line, f"{remote.command} has ended"
        reading = asyncio.create_task(process.stdout.read())
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def asked(client: StdioClient, era: str, method: str, **params: Any) -> dict[str, Any]:
    """The answer to a request of a client of an era."""
    if era == "modern":
        params["_meta"] = meta()
    return await client.ask(method, params)


async def introduced(client: StdioClient, era: str) -> str:
    """Make the acquaintance of the server as a client of an era does; the server's name."""
    if era == "legacy":
        return str((await client.introduce())["result"]["serverInfo"]["name"])
    found = (await asked(client, era, "server/discover"))["result"]
    return str(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"])


def reason(answer: dict[str, Any]) -> str:
    """The reason of an error of mcpbridge itself."""
    return str(answer["error"]["data"]["mcpbridge"]["reason"])


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("made", MADE)
async def test_the_same_stdio_client_goes_on_after_a_restart(
    made: str, era: str, unused_tcp_port: int
) -> None:
    """Each request gets an error while the server is away, and its answer when it is back."""
    remote = MADE[made](unused_tcp_port)
    name, arguments = remote.tool
    call = {"name": name, "arguments": arguments}
    async with stdio_client(remote.url) as client:
        async with listening(remote):
            assert await introduced(client, era) == remote.name
            tools = (await asked(client, era, "tools/list"))["result"]["tools"]
            assert name in [each["name"] for each in tools]
            before = (await asked(client, era, "tools/call", **call))["result"]
            assert before["content"][0]["text"] == remote.answer
        # The first request may meet a connection of which it is not known yet that it is broken.
        assert "error" in await asked(client, era, "tools/list")
        for method in ("tools/list", "tools/call"):
            assert reason(await asked(client, era, method, **call)) == "unreachable"
        async with listening(remote):
            assert (await asked(client, era, "tools/call", **call))["result"] == before
            assert (await asked(client, era, "tools/list"))["result"]["tools"] == tools
            if era == "legacy":
                await client.told("notifications/tools/list_changed")
            assert await client.end() == 0


@pytest.mark.parametrize("client_name", ["mcp1", "mcp2-legacy", "mcp2-auto"])
async def test_sdk_clients_tour_the_older_transport(client_name: str, unused_tcp_port: int) -> None:
    """Tools, progress, errors, resources, prompts and completions: as on the server's own pipe."""
    server = everything_server()
    remote = everything(unused_tcp_port)
    async with listening(remote):
        seen = await toured(python_clients()[client_name], connected(server, remote.url), None)
    shows = dict(server.shows)
    assert shown(seen, shows) == (in_2026(shows) if client_name == "mcp2-auto" else shows)


REFEREES = Server(
    name="referees",
    argv=(),
    plan={
        "lists": ("tools",),
        "calls": {
            "text": ["test_simple_text", {}],
            "failing": ["test_error_handling", {}],
            "unknown tool": ["nonesuch", {}],
        },
        "counted": {"progress": ["test_tool_with_progress", {}]},
    },
    shows={
        "text": said("This is a simple text response for testing."),
        "failing": failed("This tool intentionally returns an error for testing"),
        "unknown tool": refused(-32602),
        "progress": said("progress was told"),
    },
    answers={},
)


@pytest.mark.parametrize("client_name", ["mcp1", "mcp2-legacy", "mcp2-auto"])
async def test_sdk_clients_tour_a_server_without_the_handshake(
    client_name: str, unused_tcp_port: int
) -> None:
    """A client of either era, and progress before the answer."""
    remote = modern_only(unused_tcp_port)
    async with listening(remote):
        server = connected(REFEREES, remote.url)
        seen = await toured(python_clients()[client_name], server, None)
    assert shown(seen, REFEREES.shows) == dict(REFEREES.shows)
    assert [step for step, *_ in seen["progress-progress"]][:2] == [0, 50]


def connected(server: Server, url: str) -> Server:
    """The same server as a client finds it behind `mcpbridge connect`."""
    argv = (*interpreter_of_bridge(), "connect", url)
    return dataclasses.replace(server, argv=argv)
