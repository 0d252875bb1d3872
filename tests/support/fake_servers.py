"""Remote MCP servers for tests, as answers of `FakeRemote`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.fake_remote import Got, begin_stream, event, respond, result

TOOL = {"name": "hello", "inputSchema": {"type": "object"}}


class OlderServer:
    """A remote that has only HTTP+SSE: a stream down, POSTs up."""

    def __init__(self) -> None:
        self.stream: asyncio.StreamWriter | None = None
        self.cut: set[str] = set()

    async def __call__(self, got: Got, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        if got.method == "GET":
            begin_stream(writer)
            writer.write(event("/messages?id=1", "endpoint"))
            self.stream = writer
            await asyncio.Event().wait()
        elif got.path == "/mcp":
            respond(writer, "405 Method Not Allowed")
        elif got.rpc in self.cut:
            assert self.stream is not None
            respond(writer, "202 Accepted")
            self.stream.transport.abort()
        else:
            assert self.stream is not None
            respond(writer, "202 Accepted")
            if "id" in got.message:
                value: dict[str, Any] = {"asked": got.rpc}
                if got.rpc == "tools/list":
                    value = {"tools": [TOOL]}
                if got.rpc == "initialize":
                    value = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}
                    value["serverInfo"] = {"name": "older", "version": "1"}
                answer = {"jsonrpc": "2.0", "id": got.message["id"], "result": value}
                self.stream.write(event(answer))


async def modern_server(got: Got, writer: asyncio.StreamWriter) -> None:
    """Answer as a server that speaks 2026-07-28 alone."""
    if got.method != "POST":
        respond(writer, "405 Method Not Allowed")
    elif "mcp-method" not in got.headers:
        supported = {"supported": ["2026-07-28"], "requested": None}
        error = {"code": -32022, "message": "unsupported version", "data": supported}
        body = {"jsonrpc": "2.0", "id": got.message.get("id"), "error": error}
        respond(writer, "400 Bad Request", json.dumps(body).encode())
    elif got.rpc == "server/discover":
        value = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        result(writer, got, {**value, "resultType": "complete", "ttlMs": 0, "cacheScope": "public"})
    elif got.rpc == "tools/list":
        more = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
        result(writer, got, {"tools": [TOOL], **more})
    else:
        content = [{"type": "text", "text": got.rpc}]
        result(writer, got, {"content": content, "resultType": "complete"})
