"""A client made with the Python SDK 1.x: `client_mcp1.py URL --scenario NAME`."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import features
import mcp.types as types
import scenarios
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from pydantic import AnyUrl, BaseModel


async def _told(answer: Awaitable[BaseModel]) -> dict[str, Any]:
    try:
        result = await answer
    except McpError as refused:
        raise scenarios.RefusedError(_wire(refused.error)) from refused
    return _wire(result)


def _wire(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_unset=True)


class Inbox:
    """What a session was told outside of answers."""

    def __init__(self) -> None:
        self.logs = scenarios.Arrivals()
        self.updates = scenarios.Arrivals()

    async def hear(self, message: object) -> None:
        """Take in what the SDK hands on."""
        match message:
            case types.ServerNotification(root=types.LoggingMessageNotification(params=params)):
                self.logs.append(_wire(params))
            case types.ServerNotification(root=types.ResourceUpdatedNotification(params=params)):
                self.updates.append(_wire(params))


class PeerSession:
    """A `ClientSession` seen as `scenarios.PeerSession`."""

    def __init__(self, session: ClientSession, hello: dict[str, Any], inbox: Inbox) -> None:
        self._session = session
        self.hello = hello
        self.logs = inbox.logs
        self.updates = inbox.updates

    async def call(self, name, arguments, on_progress=None):
        return await _told(self._session.call_tool(name, arguments, progress_callback=on_progress))

    async def page(self, kind, cursor):
        ask = {
            "tools": self._session.list_tools,
            "resources": self._session.list_resources,
            "resourceTemplates": self._session.list_resource_templates,
            "prompts": self._session.list_prompts,
        }[kind]
        return await _told(ask(params=types.PaginatedRequestParams(cursor=cursor)))

    async def read(self, uri):
        return await _told(self._session.read_resource(AnyUrl(uri)))

    async def prompt(self, name, arguments):
        return await _told(self._session.get_prompt(name, arguments))

    async def complete(self, ref, argument):
        kind = {
            "ref/prompt": types.PromptReference,
            "ref/resource": types.ResourceTemplateReference,
        }[ref["type"]]
        return await _told(self._session.complete(kind(**ref), argument))

    async def ping(self):
        return await _told(self._session.send_ping())

    async def set_level(self, level):
        return await _told(self._session.set_logging_level(level))

    async def subscribe(self, uri):
        return await _told(self._session.subscribe_resource(AnyUrl(uri)))

    async def unsubscribe(self, uri):
        return await _told(self._session.unsubscribe_resource(AnyUrl(uri)))

    async def abandon(self, name, arguments):
        """Call a tool and cancel the call once it has reported progress."""
        begun = anyio.Event()

        async def on_progress(*_step):
            begun.set()

        # This version of the SDK does not say which id a call has, and cancels none by itself.
        request_id = self._session._request_id
        async with anyio.create_task_group() as group:
            group.start_soon(self.call, name, arguments, on_progress)
            await begun.wait()
            gone = types.CancelledNotificationParams(requestId=request_id, reason="enough")
            await self._session.send_notification(
                types.ClientNotification(types.CancelledNotification(params=gone))
            )
            group.cancel_scope.cancel()


async def _elicited(_context, params):
    name = next(iter(params.requestedSchema["properties"]))
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


def _transport(options: argparse.Namespace):
    if options.transport == "stdio":
        command, *args = options.target
        return stdio_client(StdioServerParameters(command=command, args=args))
    head = {"authorization": f"Bearer {options.bearer}"} if options.bearer else {}
    if options.transport == "sse":
        return sse_client(options.target[0], headers=head)
    client = create_mcp_http_client(headers=head) if head else None
    return streamable_http_client(options.target[0], http_client=client)


@asynccontextmanager
async def connect(options: argparse.Namespace) -> AsyncIterator[PeerSession]:
    """An initialized session; left by DELETE where the transport has sessions."""
    inbox = Inbox()

    async with (
        _transport(options) as (received, sent, *_),
        ClientSession(
            received,
            sent,
            message_handler=inbox.hear,
            **(DECLARED if options.declare else {}),
        ) as session,
    ):
        yield PeerSession(session, await _told(session.initialize()), inbox)


if __name__ == "__main__":
    scenarios.main(connect, {"features": features.features})
