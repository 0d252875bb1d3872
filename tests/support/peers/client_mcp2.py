"""A client made with the Python SDK 2.x: `client_mcp2.py URL --scenario NAME [--mode auto]`."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import scenarios
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from pydantic import BaseModel

# Sampling, roots, ping and log levels are deprecated by the 2026-07-28 revision; the handshake
# revisions, which this program speaks too, have nothing else.
warnings.filterwarnings("ignore", category=MCPDeprecationWarning)


async def _told(answer: Awaitable[BaseModel]) -> dict[str, Any]:
    try:
        result = await answer
    except MCPError as refused:
        raise scenarios.RefusedError(_wire(refused.error)) from refused
    return _wire(result)


def _wire(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_unset=True)


class PeerSession:
    """A `Client` seen as `scenarios.PeerSession`."""

    def __init__(self, client: Client, logs: scenarios.Arrivals) -> None:
        self._client = client
        self.logs = logs
        self.hello = {
            "protocolVersion": client.protocol_version,
            "capabilities": _wire(client.server_capabilities),
            "serverInfo": _wire(client.server_info) if client.server_info else None,
        }
        if client.instructions is not None:
            self.hello["instructions"] = client.instructions

    async def call(self, name, arguments, on_progress=None):
        return await _told(self._client.call_tool(name, arguments, progress_callback=on_progress))

    async def page(self, kind, cursor):
        ask = {
            "tools": self._client.list_tools,
            "resources": self._client.list_resources,
            "resourceTemplates": self._client.list_resource_templates,
            "prompts": self._client.list_prompts,
        }[kind]
        return await _told(ask(cursor=cursor))

    async def read(self, uri):
        return await _told(self._client.read_resource(uri))

    async def prompt(self, name, arguments):
        return await _told(self._client.get_prompt(name, arguments))

    async def complete(self, ref, argument):
        kind = {
            "ref/prompt": types.PromptReference,
            "ref/resource": types.ResourceTemplateReference,
        }[ref["type"]]
        return await _told(self._client.complete(kind(**ref), argument))

    async def ping(self):
        return await _told(self._client.send_ping())

    async def set_level(self, level):
        return await _told(self._client.set_logging_level(level))


async def _elicited(_context, params):
    name = next(iter(params.requested_schema["properties"]))
    return types.ElicitResult(action="accept", content={name: f"said to: {params.message}"})


async def _sampled(_context, params):
    text = f"sampled from: {params.messages[0].content.text}"
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text=text), model="none"
    )


async def _roots(_context):
    return types.ListRootsResult(roots=[types.Root(uri="file:///peer/place", name="root")])


DECLARED = {
    "elicitation_callback": _elicited,
    "sampling_callback": _sampled,
    "list_roots_callback": _roots,
}


def _server(options: argparse.Namespace):
    if options.transport == "stdio":
        command, *args = options.target
        return StdioServerParameters(command=command, args=args)
    head = {"authorization": f"Bearer {options.bearer}"} if options.bearer else {}
    if options.transport == "sse":
        return sse_client(options.target[0], headers=head)
    if not head:
        return options.target[0]
    client = httpx2.AsyncClient(headers=head, timeout=30)
    return streamable_http_client(options.target[0], http_client=client)


@asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[PeerSession]:
    """A client past its handshake (or discovery, by --mode); left by DELETE where it has one."""
    logs = scenarios.Arrivals()

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logs.append(_wire(params))

    declared = DECLARED if options.declare else {}
    async with Client(
        _server(options), mode=options.mode, logging_callback=log, **declared
    ) as client:
        yield PeerSession(client, logs)


if __name__ == "__main__":
    scenarios.main(connect)
