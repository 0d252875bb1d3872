"""A running bridge over questioners, and what tests do with it over and over."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.bridge_process import (
    RunningBridge,
    bridge,
    child,
    eventually,
    messages,
    open_session,
    rpc,
)
from tests.support.raw_http import recorded

Headers = dict[str, str]
ASKED: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
"""The abilities of a client that gets its own child."""


def note(method: str, **params: Any) -> str:
    """The line of a notification."""
    return json.dumps({"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params})


def question(request_id: Any, method: str = "elicitation/create", **params: Any) -> str:
    """The line of a question."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def result_of(request_id: Any, result: Any) -> dict[str, Any]:
    """A good answer."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


class Served(NamedTuple):
    """A bridge, the folder in which its children record their stdin, and a client."""

    bridge: RunningBridge
    folder: Path
    client: httpx.AsyncClient

    async def open(self, revision: str = "2025-06-18", **capabilities: Any) -> Headers:
        """A session's headers."""
        return await open_session(self.client, revision, capabilities)

    async def own(self, revision: str = "2025-06-18") -> Headers:
        """The headers of a session with its own child."""
        return await open_session(self.client, revision, ASKED)

    async def post(self, headers: Headers, body: Any) -> httpx.Response:
        """POST whatever this is."""
        return await self.client.post("/mcp", json=body, headers=headers)

    async def ask(self, headers: Headers, method: str, **params: Any) -> Any:
        """The result of a call."""
        answer = await self.post(headers, rpc("ask", method, params))
        assert answer.status_code == 200, answer.text
        return messages(answer.text)[-1]["result"]

    async def tell(self, headers: Headers, method: str, **params: Any) -> None:
        """Send a notification."""
        body = {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params}
        answer = await self.post(headers, body)
        assert (answer.status_code, answer.content) == (202, b""), answer.text

    async def reply(self, headers: Headers, request_id: Any, result: Any) -> None:
        """Answer a question."""
        answer = await self.post(headers, result_of(request_id, result))
        assert (answer.status_code, answer.content) == (202, b""), answer.text

    async def say(self, headers: Headers, *lines: str, times: int = 1) -> None:
        """Let the session's child say this while none of its calls is in flight."""
        await self.tell(headers, "x-say", lines=lines, times=times)
        await self.ask({**headers, "accept": "application/json"}, "x/echo")

    async def turns(self) -> None:
        """Let the bridge's loop go round until it has seen what happened to its connections."""
        for _ in range(10):
            await self.ask({}, "x/echo")

    async def delete(self, headers: Headers) -> None:
        """End a session."""
        assert (await self.client.delete("/mcp", headers=headers)).status_code == 200

    def heard(self, method: str | None = None) -> list[dict[str, Any]]:
        """What the children have read so far; of one method, where one is named."""
        lines = [json.loads(line) for line in recorded(self.folder).splitlines()]
        return [line for line in lines if method is None or line.get("method") == method]

    async def until_heard(self, text: str, count: int = 1) -> None:
        """Wait until the children have read a text so often."""
        wanted = text.encode()
        await eventually(
            lambda: recorded(self.folder).count(wanted) >= count, f"{count} x {text} is read"
        )


@asynccontextmanager
async def serving(folder: Path, *words: str, newest: str | None = None) -> AsyncIterator[Served]:
    """A bridge over questioners that speak no revision newer than `newest`."""
    limits = httpx.Limits(max_connections=None)
    dated = ("--newest", newest) if newest else ()
    command = child("questioner", str(folder), *dated)
    async with (
        bridge(*words, "--", *command) as running,
        running.client(limits=limits) as client,
    ):
        yield Served(running, folder, client)


class Block(NamedTuple):
    """One event as it travels."""

    fields: dict[str, str]
    """By name, in order."""

    @property
    def id(self) -> str:
        """The event's id."""
        return self.fields["id"]

    @property
    def message(self) -> Any:
        """The message it carries."""
        return json.loads(self.fields["data"])


class Blocks:
    """The events of a stream, field by field; for what `wires.Events` leaves out."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Block | None:
        """The next event; None at the end of the stream. Comments are not events."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and fields:
                return Block(fields)
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        assert not fields, "a stream ends between events"
        return None

    async def some(self, count: int) -> list[Block]:
        """That many events."""
        found = [await self.next() for _ in range(count)]
        assert None not in found, found
        return [block for block in found if block is not None]

    async def rest(self) -> list[Block]:
        """All events up to the end."""
        found = []
        while (block := await self.next()) is not None:
            found.append(block)
        return found


@asynccontextmanager
async def reading(
    client: httpx.AsyncClient,
    headers: Headers,
    message: Any = None,
    after: str | None = None,
    path: str = "/mcp",
) -> AsyncIterator[Blocks]:
    """POST a message and read its event stream; without a message GET one, after an event."""
    more = {} if after is None else {"last-event-id": after}
    verb = "GET" if message is None else "POST"
    given = httpx.Headers({**headers, **more}, encoding="latin-1")
    async with client.stream(verb, path, json=message, headers=given) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream"
        yield Blocks(response)
