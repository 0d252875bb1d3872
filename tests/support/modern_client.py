"""A raw client of 2026-07-28, and a bridge over the program `eras` for it."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.bridge_process import ACCEPT, RunningBridge, bridge, child, eventually, messages
from tests.support.raw_http import Events

DATE = "2026-07-28"
RESERVED = "io.modelcontextprotocol/"
SUBSCRIPTION = RESERVED + "subscriptionId"
FORM: dict[str, Any] = {"elicitation": {}}
ALL: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
Leave = None
"""In the place of a header: it is not sent."""


def meta(capabilities: Any = None, **more: Any) -> dict[str, Any]:
    """The `_meta` of a request; `level` and `token` have their own names."""
    found: dict[str, Any] = {
        RESERVED + "protocolVersion": DATE,
        RESERVED + "clientCapabilities": capabilities or {},
        RESERVED + "clientInfo": {"name": "test", "version": "1"},
    }
    if "level" in more:
        found[RESERVED + "logLevel"] = more.pop("level")
    if "token" in more:
        found["progressToken"] = more.pop("token")
    return {**found, **more}


def header_value(text: str) -> str:
    """A text as the value of a routing header."""
    if text.isascii() and text.isprintable():
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def headers_of(message: Mapping[str, Any], **changed: str | None) -> dict[str, str]:
    """The head that belongs to a message; `Leave` leaves one out, `_` stands for `-`."""
    found: dict[str, str | None] = {
        **ACCEPT,
        "mcp-protocol-version": DATE,
        "mcp-method": message["method"],
    }
    source = _NAMED.get(message["method"])
    if source is not None and source in message.get("params", {}):
        found["mcp-name"] = header_value(str(message["params"][source]))
    found.update({name.replace("_", "-"): value for name, value in changed.items()})
    return {name: value for name, value in found.items() if value is not None}


def asking(*rounds: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The params of a call that asks."""
    return {"name": "do", "arguments": {"ask": list(rounds), **more}}


def form(message: str = "name?", **more: Any) -> dict[str, Any]:
    """A question for a form."""
    params = {"message": message, "requestedSchema": {"type": "object", "properties": {}}, **more}
    return {"method": "elicitation/create", "params": params}


def progress(number: int) -> str:
    """A line of progress of the call that says it."""
    params = {"progressToken": "$TOKEN", "progress": number}
    line = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    return json.dumps(line)


def remark(level: str, data: Any = "x") -> str:
    """A line of the log."""
    params = {"level": level, "data": data}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params})


def news(method: str, **params: Any) -> str:
    """A line of a notification."""
    line = {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params}
    return json.dumps(line)


class Stateless:
    """A bridge, the folder in which its children record their stdin, and a client."""

    def __init__(self, running: RunningBridge, folder: Path, client: httpx.AsyncClient) -> None:
        self.bridge = running
        self.folder = folder
        self.client = client
        self._ids = itertools.count(1000)

    def request(
        self, method: str, params: Any = None, capabilities: Any = None, **more: Any
    ) -> dict[str, Any]:
        """A request with its envelope; `id`, `level`, `token` and further keys of `_meta`."""
        request_id = more.pop("id", None)
        return {
            "jsonrpc": "2.0",
            "id": next(self._ids) if request_id is None else request_id,
            "method": method,
            "params": {**(params or {}), "_meta": meta(capabilities, **more)},
        }

    async def send(self, message: Any, **changed: str | None) -> httpx.Response:
        """POST a message under its own head."""
        return await self.client.post("/mcp", json=message, headers=headers_of(message, **changed))

    async def post(
        self, method: str, params: Any = None, capabilities: Any = None, **more: Any
    ) -> httpx.Response:
        """POST a request."""
        return await self.send(self.request(method, params, capabilities, **more))

    async def reply(
        self, method: str, params: Any = None, capabilities: Any = None, **more: Any
    ) -> Any:
        """The answer to a request, whatever came before it."""
        message = self.request(method, params, capabilities, **more)
        response = await self.send(message)
        answer = messages(response.text)[-1]
        assert answer["id"] == message["id"]
        assert "mcp-session-id" not in response.headers
        return answer

    async def result(
        self, method: str, params: Any = None, capabilities: Any = None, **more: Any
    ) -> Any:
        """The result of a request."""
        answer = await self.reply(method, params, capabilities, **more)
        assert "result" in answer, answer
        return answer["result"]

    async def error(
        self, method: str, params: Any = None, capabilities: Any = None, **more: Any
    ) -> Any:
        """The error of a request."""
        answer = await self.reply(method, params, capabilities, **more)
        assert "error" in answer, answer
        return answer["error"]

    async def do(self, capabilities: Any = None, **wishes: Any) -> Any:
        """The result of the tool that does what it is told."""
        params = {"name": "do", "arguments": wishes}
        return await self.result("tools/call", params, capabilities)

    @asynccontextmanager
    async def stream(self, message: Any, **changed: str | None) -> AsyncIterator[Events]:
        """POST a message and read the event stream that answers it."""
        head = headers_of(message, **changed)
        async with self.client.stream("POST", "/mcp", json=message, headers=head) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "text/event-stream"
            yield Events(response)

    def heard(self, method: str | None = None) -> list[dict[str, Any]]:
        """What all children have read so far; of one method, where one is named."""
        lines = [line for each in self.processes().values() for line in each]
        return [line for line in lines if method is None or line.get("method") == method]

    def processes(self) -> dict[int, list[dict[str, Any]]]:
        """What each child has read so far, by its process id."""
        return {
            int(path.name): [json.loads(line) for line in path.read_bytes().splitlines()]
            for path in sorted(self.folder.iterdir())
        }

    async def until_heard(self, method: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the children have read that many messages of a method."""
        await eventually(lambda: len(self.heard(method)) >= count, f"{count} x {method}")
        return self.heard(method)


def text_of(result: Any) -> Any:
    """What the program `eras` says of a call: its answers and its params."""
    return json.loads(result["content"][0]["text"])


def retry_of(params: Any, result: Any, **responses: Any) -> dict[str, Any]:
    """The params of the retry that brings these answers."""
    return {**params, "inputResponses": responses, "requestState": result["requestState"]}


@asynccontextmanager
async def serving(
    kind: str,
    folder: Path,
    *words: str,
    manners: tuple[str, ...] = (),
    ready: bool = True,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Stateless]:
    """A bridge over `eras` of this kind; its era is asked unless the words say it."""
    limits = httpx.Limits(max_connections=None)
    asked = {"MCPBRIDGE_CHILD_ERA": "auto", **(env or {})}
    command = child("eras", kind, str(folder), *manners)
    async with (
        bridge(*words, "--", *command, env=asked, ready=ready) as running,
        running.client(limits=limits) as client,
    ):
        yield Stateless(running, folder, client)
