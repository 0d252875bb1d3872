"""One whole conversation whose requests go to several replicas, written down for comparison."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import httpx

from tests.support.bridge_process import ACCEPT, initialize, messages, rpc

WITHIN_S = 60.0
REVISION = "2025-11-25"
JSON = {"content-type": "application/json"}
LONG_S = 60
"""The work of a call that is cancelled."""


class Event(NamedTuple):
    """One message of a stream."""

    event_id: str
    message: Any


class Stream:
    """An event stream, read message by message."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Event | None:
        """Return the next message; None if the stream has ended."""
        event_id, data = "", ""
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                name, _, value = line.partition(":")
                if name == "id":
                    event_id = value.strip()
                elif name == "data":
                    data += value.strip()
                elif not line and data:
                    return Event(event_id, json.loads(data))
        return None

    async def rest(self) -> list[Any]:
        """Return all messages until the end of the stream."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event.message)
        return found


class Client:
    """One session, whose requests go where the caller says."""

    def __init__(self, http: httpx.AsyncClient, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._http = http

    @classmethod
    async def opened(
        cls, http: httpx.AsyncClient, url: str, told: str, capabilities: Any = None
    ) -> tuple[Client, httpx.Response]:
        """Open a session at one URL and tell another that it is initialized."""
        hello = initialize(0, REVISION, capabilities)
        response = await http.post(f"{url}/mcp", json=hello, headers=ACCEPT)
        assert response.status_code == 200, response.text
        session_id = response.headers["mcp-session-id"]
        named = {**ACCEPT, "mcp-session-id": session_id, "mcp-protocol-version": REVISION}
        made = cls(http, named)
        done = await made.post(told, notification("notifications/initialized"))
        assert done.status_code == 202, done.text
        return made, response

    async def post(self, url: str, message: Any) -> httpx.Response:
        """Send a message and read its whole answer."""
        return await self._http.post(f"{url}/mcp", json=message, headers=self.headers)

    async def delete(self, url: str) -> httpx.Response:
        """End the session."""
        return await self._http.delete(f"{url}/mcp", headers=self.headers)

    @asynccontextmanager
    async def streaming(self, url: str, message: Any) -> AsyncIterator[Stream]:
        """Send a message and read the stream of its answer."""
        body = json.dumps(message).encode()
        headers = {**self.headers, **JSON}
        async with self._http.stream("POST", f"{url}/mcp", content=body, headers=headers) as got:
            yield Stream(got)

    @asynccontextmanager
    async def listening(self, url: str, last: str | None = None) -> AsyncIterator[Stream]:
        """Open the standalone stream, or go on with one after an event."""
        headers = {**self.headers, "accept": "text/event-stream"}
        if last is not None:
            headers["last-event-id"] = last
        async with self._http.stream("GET", f"{url}/mcp", headers=headers) as got:
            assert got.status_code == 200, await got.aread()
            yield Stream(got)


def notification(method: str, **params: Any) -> dict[str, Any]:
    """Return a JSON-RPC notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def tool_call(request_id: Any, name: str, *, token: Any = None, **arguments: Any) -> Any:
    """Return a `tools/call`, with a progress token if one is given."""
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return rpc(request_id, "tools/call", params)


def http_client() -> httpx.AsyncClient:
    """Return a client for any number of streams."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(timeout=httpx.Timeout(WITHIN_S), limits=limits)


async def held(opened: str, posted: str, other: str) -> list[Any]:
    """Hold a conversation and return all that the client was told, without what is random.

    Args:
        opened: The URL that `initialize` goes to.
        posted: Where calls go to.
        other: Where streams, the client's answers, cancellations and the DELETE go to.
    """
    told: list[Any] = []
    async with http_client() as http, AsyncExitStack() as stack:
        client, response = await Client.opened(http, opened, posted, {"elicitation": {}})
        (hello,) = messages(response.text)
        hello["result"]["serverInfo"].pop("version")  # the process id
        told.append(["initialize", hello])
        alone = await stack.enter_async_context(client.listening(other))
        for url in (posted, other):
            told.append(["tools", *_shown(await client.post(url, rpc(1, "tools/list")))])
        told += [["progress", *await _streamed(client, posted)]]
        told += [["question", *await _asked(client, posted, other)]]
        told.append(
            ["announced", *_shown(await client.post(posted, tool_call(4, "announce", text="a")))]
        )
        event = await alone.next()
        told.append(["alone", event and event.message])
        told += [["cancelled", *await _cancelled(client, posted, other)]]
        told += [["resumed", *await _resumed(client, posted, other)]]
        told.append(["delete", *_shown(await client.delete(other))])
        told.append(["alone", *await alone.rest()])
        told.append(["gone", *_shown(await client.post(posted, rpc(9, "ping")))])
    return told


async def _streamed(client: Client, url: str) -> list[Any]:
    async with client.streaming(url, tool_call(2, "steps", token="t", text="s")) as stream:
        return [stream.response.status_code, *await stream.rest()]


async def _asked(client: Client, posted: str, other: str) -> list[Any]:
    async with client.streaming(posted, tool_call(3, "ask", text="a?")) as stream:
        event = await stream.next()
        assert event is not None
        question_id = event.message.pop("id")
        result = {"action": "accept", "content": {"answer": "a!"}}
        answer = {"jsonrpc": "2.0", "id": question_id, "result": result}
        done = await client.post(other, answer)
        return [event.message, done.status_code, *await stream.rest()]


async def _cancelled(client: Client, posted: str, other: str) -> list[Any]:
    call = tool_call(5, "steps", token="c", text="c", wait_s=LONG_S)
    async with client.streaming(posted, call) as stream:
        event = await stream.next()
        assert event is not None
        gone = notification("notifications/cancelled", requestId=5, reason="enough")
        done = await client.post(other, gone)
        return [event.message, done.status_code, *await stream.rest()]


async def _resumed(client: Client, posted: str, other: str) -> list[Any]:
    call = tool_call(6, "steps", token="r", text="r", wait_s=0.6)
    async with client.streaming(posted, call) as stream:
        event = await stream.next()
        assert event is not None
    async with client.listening(other, last=event.event_id) as stream:
        found = [event.message]
        while (more := await stream.next()) is not None:
            found.append(more.message)
            if "result" in more.message:
                break
        return found


def _shown(response: httpx.Response) -> list[Any]:
    kind = response.headers.get("content-type", "")
    told = messages(response.text) if response.text.strip() else []
    return [response.status_code, kind, *told]
