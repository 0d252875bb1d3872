"""`mcpbridge dev` over a server in a separate folder, and what tests do with it."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from tests.support.bridge_process import (
    CHILDREN,
    RunningBridge,
    bridge,
    messages,
    open_session,
    rpc,
)

SOURCE = (CHILDREN / "changing.py").read_text("utf-8")
WITH_CHILDREN = MappingProxyType({"PYTHONPATH": str(CHILDREN)})
"""The environment of a server that is one of `tests/children`."""
Headers = dict[str, str]


class Developing:
    """A bridge, the file of its server, and a client."""

    def __init__(self, running: RunningBridge, server: Path, client: httpx.AsyncClient) -> None:
        self.bridge = running
        self.server = server
        self.client = client
        self._ids = itertools.count(1)

    async def open(self, capabilities: Any = None) -> Headers:
        """A session's headers."""
        return await open_session(self.client, capabilities=capabilities)

    async def ask(self, headers: Headers, method: str, **params: Any) -> Any:
        """The result of a request, whatever came before it."""
        body = rpc(next(self._ids), method, params)
        response = await self.client.post("/mcp", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return messages(response.text)[-1]["result"]

    async def call(self, headers: Headers, tool: str = "one", **arguments: Any) -> Any:
        """What a tool says: the process that was called, and the roots of its client."""
        return said(await self.ask(headers, "tools/call", name=tool, arguments=arguments))

    async def tools(self, headers: Headers) -> list[str]:
        """The names of the tools."""
        return [each["name"] for each in (await self.ask(headers, "tools/list"))["tools"]]

    async def saved(self, text: str, event: str = "server.reloaded") -> dict[str, Any]:
        """Save the server's file and wait for what comes of it; its record."""
        count = len(self.bridge.events(event))
        save(self.server, text)
        return (await self.bridge.logged(event, count=count + 1))[count]


def source(tools: Sequence[str] = ("one",), kind: str = "plain") -> str:
    """The text of a server."""
    text = SOURCE.replace('TOOLS = ["one"]', f"TOOLS = {list(tools)!r}")
    return text.replace('KIND = "plain"', f"KIND = {kind!r}")


def save(path: Path, text: str) -> None:
    """Save a file as many editors do: another one takes its name."""
    other = path.with_name(path.name + "~")
    other.write_text(text, "utf-8")
    os.replace(other, path)


def said(result: Any) -> Any:
    """What a tool says in its result."""
    return json.loads(result["content"][0]["text"])


@asynccontextmanager
async def developing(
    folder: Path,
    text: str,
    *words: str,
    ready: bool = True,
    python: str = sys.executable,
    env: Mapping[str, str] = WITH_CHILDREN,
) -> AsyncIterator[Developing]:
    """`mcpbridge dev` with these words over a server with this text, for this Python."""
    folder = folder / "project"
    folder.mkdir()
    server = folder / "server.py"
    server.write_text(text, "utf-8")
    command = (*words, "--", python, str(server))
    async with bridge(*command, program=["dev"], ready=ready, env=env) as running:
        await running.logged("dev.started")
        limits = httpx.Limits(max_connections=None)
        async with running.client(limits=limits) as client:
            yield Developing(running, server, client)
