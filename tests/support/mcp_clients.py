"""Clients of each transport seen alike: a call and what comes of it, questions, what is told.

`Streamable` speaks 2025-03-26 to 2025-11-25, `OneStream` the transport of 2024-11-05 with whatever
revision of the handshake, `Enveloped` 2026-07-28.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any, Protocol

import httpx

from tests.support.bridge_process import ACCEPT, RunningBridge, initialize, open_session, rpc
from tests.support.raw_http import WITHIN_S, Events, streaming

Next = Callable[[], Awaitable[Any]]
"""Waits for the next message; None at the end of the stream."""
KEY = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
ASKED: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
YES = {"action": "accept", "content": {"name": "Ann"}}


class McpSession(Protocol):
    """A client's session, or what stands for one."""

    client: httpx.AsyncClient

    def calling(self, request: Any) -> AbstractAsyncContextManager[Next]:
        """Send a request; the messages that come of it, its answer among them."""

    def listening(self) -> AbstractAsyncContextManager[Next]:
        """What is told outside of calls."""

    async def send(self, message: Any) -> None:
        """Send what gets no answer."""


class Streamable:
    """A session over Streamable HTTP."""

    def __init__(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers

    @asynccontextmanager
    async def calling(self, request: Any) -> AsyncIterator[Next]:
        """The answer to the POST, of either kind."""
        async with self.client.stream(
            "POST", "/mcp", json=request, headers=self.headers
        ) as response:
            assert response.status_code == 200, await response.aread()
            yield await _messages_in(response)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Next]:
        """The stream of a GET."""
        async with streaming(self.client, {**self.headers, "accept": "text/event-stream"}) as told:
            yield told.next

    async def send(self, message: Any) -> None:
        """POST it; it is accepted."""
        answer = await self.client.post("/mcp", json=message, headers=self.headers)
        assert (answer.status_code, answer.content) == (202, b""), answer.text


class OneStream:
    """A session over HTTP+SSE: everything comes on one stream."""

    def __init__(self, client: httpx.AsyncClient, lines: AsyncIterator[str]) -> None:
        self.client = client
        self.endpoint = ""
        self._lines = lines

    async def connect(self) -> None:
        """Take the address for messages, which comes first."""
        assert await self._data() is not None
        assert self.endpoint

    async def next(self) -> Any:
        """The next message."""
        data = await self._data()
        return None if data is None else json.loads(data)

    @asynccontextmanager
    async def calling(self, request: Any) -> AsyncIterator[Next]:
        """The one stream."""
        await self.send(request)
        yield self.next

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Next]:
        """The one stream."""
        yield self.next

    async def send(self, message: Any) -> None:
        """POST it; it is accepted."""
        answer = await self.client.post(self.endpoint, json=message)
        assert answer.status_code == 202, answer.text

    async def _data(self) -> str | None:
        event = "message"
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "endpoint":
                    self.endpoint = value
                    return value
                elif name == "data":
                    return value
        return None


class Enveloped:
    """A client of 2026-07-28: each request is whole, a question ends its answer."""

    def __init__(self, client: httpx.AsyncClient, capabilities: Any = None) -> None:
        self.client = client
        self.capabilities = capabilities or {}

    def whole(self, request: Any) -> tuple[Any, dict[str, str]]:
        """The request with its envelope, and the headers that repeat it."""
        params = request.get("params") or {}
        meta = {
            **params.get("_meta", {}),
            KEY + "protocolVersion": MODERN,
            KEY + "clientCapabilities": self.capabilities,
            KEY + "clientInfo": {"name": "enveloped", "version": "1"},
        }
        headers = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": request["method"]}
        name = params.get("name", params.get("uri"))
        if name is not None:
            headers["mcp-name"] = name
        return {**request, "params": {**params, "_meta": meta}}, headers

    @asynccontextmanager
    async def calling(self, request: Any) -> AsyncIterator[Next]:
        """The answer to the POST, of either kind."""
        body, headers = self.whole(request)
        async with self.client.stream("POST", "/mcp", json=body, headers=headers) as response:
            yield await _messages_in(response)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Next]:
        """A subscription to the changes of tools, past its acknowledgement."""
        wanted = {"notifications": {"toolsListChanged": True}}
        async with self.calling(rpc("listen", "subscriptions/listen", wanted)) as told:
            first = await told()
            assert first["method"] == "notifications/subscriptions/acknowledged", first
            assert first["params"]["notifications"] == wanted["notifications"]
            yield told

    async def send(self, message: Any) -> None:
        """There is nothing that gets no answer."""
        raise AssertionError(f"{MODERN} has no such message: {message}")


async def _messages_in(response: httpx.Response) -> Next:
    """The messages of an answer, whether it is an event stream or not."""
    if response.headers["content-type"] == "application/json":
        whole = iter([json.loads(await response.aread())])

        async def only() -> Any:
            return next(whole, None)

        return only
    assert response.headers["content-type"] == "text/event-stream"
    return Events(response).next


@asynccontextmanager
async def one_stream(
    bridge: RunningBridge, revision: str = "2024-11-05", capabilities: Any = None
) -> AsyncIterator[OneStream]:
    """A session over HTTP+SSE, past its handshake."""
    async with (
        bridge.client() as client,
        client.stream("GET", "/sse", headers={"accept": "text/event-stream"}) as response,
    ):
        assert response.status_code == 200
        mcp_session = OneStream(client, response.aiter_lines())
        await mcp_session.connect()
        await mcp_session.send(initialize("first", revision, capabilities))
        hello = await mcp_session.next()
        assert hello["result"]["protocolVersion"] == revision
        await mcp_session.send(INITIALIZED)
        yield mcp_session


@asynccontextmanager
async def streamable(
    bridge: RunningBridge, revision: str = "2025-06-18", capabilities: Any = None
) -> AsyncIterator[Streamable]:
    """A session over Streamable HTTP, past its handshake; ended at the end."""
    async with bridge.client(limits=httpx.Limits(max_connections=None)) as client:
        headers = await open_session(client, revision, capabilities)
        yield Streamable(client, headers)
        assert (await client.delete("/mcp", headers=headers)).status_code == 200


@asynccontextmanager
async def enveloped(bridge: RunningBridge, capabilities: Any = None) -> AsyncIterator[Enveloped]:
    """A client of 2026-07-28."""
    async with bridge.client() as client:
        yield Enveloped(client, capabilities)


_ids = count(1)


async def until(following: Next, wanted: Callable[[Any], bool]) -> list[Any]:
    """The messages up to one that is wanted."""
    found: list[Any] = []
    while True:
        message = await following()
        assert message is not None, f"the stream ended after {found}"
        found.append(message)
        if wanted(message):
            return found


async def called(
    mcp_session: McpSession, method: str, params: Any = None, answers: Sequence[Any] = ()
) -> list[Any]:
    """All that comes of a call, its answer last; questions are answered in their order.

    Args:
        mcp_session: Asks.
        method: What.
        params: With which parameters.
        answers: Results of the client, a question each.
    """
    request = rpc(f"call-{next(_ids)}", method, params)
    given = iter(answers)
    async with mcp_session.calling(request) as following:
        found: list[Any] = []
        while not found or found[-1].get("id") != request["id"]:
            message = await following()
            assert message is not None, f"no answer after {found}"
            found.append(message)
            if "method" in message and "id" in message:
                result = next(given)
                await mcp_session.send({"jsonrpc": "2.0", "id": message["id"], "result": result})
    return found


async def answered(
    mcp_session: McpSession, method: str, params: Any = None, answers: Sequence[Any] = ()
) -> Any:
    """The result of a call."""
    last = (await called(mcp_session, method, params, answers))[-1]
    assert "result" in last, last
    return last["result"]


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    """The params of a tool's call."""
    return {"name": name, "arguments": arguments}


def text_in(result: Any) -> Any:
    """What the children of these tests say: JSON as text."""
    return json.loads(result["content"][0]["text"])
