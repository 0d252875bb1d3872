"""A remote MCP server for tests: each of its answers is written by the test, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

REVISION = "2025-06-18"
CAPABILITIES: Mapping[str, Any] = {"tools": {}, "logging": {}, "resources": {"subscribe": True}}


@dataclass(frozen=True)
class Got:
    """One request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The body as JSON; empty if there is none."""
        found: dict[str, Any] = json.loads(self.body) if self.body else {}
        return found

    @property
    def rpc(self) -> str:
        """The JSON-RPC method; empty for an answer, or without a body."""
        return str(self.message.get("method", ""))


Answer = Callable[["Got", asyncio.StreamWriter], Awaitable[None]]


class FakeRemote:
    """A server on a port of loopback; `stop` and `start` on the same port are a restart."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._news = asyncio.Condition()
        self.port = 0
        self.got: list[Got] = []
        """Every request so far, oldest first."""

    @property
    def url(self) -> str:
        """The address of its endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no longer, and cut every connection."""
        assert self._server is not None
        self._server.close()
        for writer, task in list(self._writers.items()):
            writer.transport.abort()
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._server.wait_closed()

    def all_of(self, rpc: str) -> list[Got]:
        """The requests so far with this JSON-RPC method."""
        return [each for each in self.got if each.rpc == rpc]

    async def received(self, wanted: Callable[[Got], bool], count: int = 1) -> list[Got]:
        """Wait until that many requests of a kind have arrived."""
        async with self._news, asyncio.timeout(20):
            await self._news.wait_for(lambda: len(list(filter(wanted, self.got))) >= count)
        return list(filter(wanted, self.got))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[writer] = asyncio.current_task()
        try:
            while True:
                got = await _read(reader)
                async with self._news:
                    self.got.append(got)
                    self._news.notify_all()
                await self._answer(got, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client, or `stop`, has ended it
        finally:
            self._writers.pop(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def fake_remote(answer: Answer) -> AsyncIterator[FakeRemote]:
    """A server that listens until the block ends."""
    remote = FakeRemote(answer)
    await remote.start()
    try:
        yield remote
    finally:
        await remote.stop()


async def _read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    method, path, _ = first.split(" ")
    return Got(method, path, headers, body)


def respond(
    writer: asyncio.StreamWriter,
    status: str,
    body: bytes = b"",
    kind: str = "application/json",
    **headers: str,
) -> None:
    """Write a whole response; `_` in the names of headers stands for `-`."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    length = f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"HTTP/1.1 {status}\r\n{length}{more}\r\n".encode() + body)


def result(
    writer: asyncio.StreamWriter, got: Got, value: Mapping[str, Any], **headers: str
) -> None:
    """Answer a request with a result, as JSON."""
    body = {"jsonrpc": "2.0", "id": got.message["id"], "result": value}
    respond(writer, "200 OK", json.dumps(body).encode(), **headers)


def introduced(
    writer: asyncio.StreamWriter,
    got: Got,
    capabilities: Mapping[str, Any] = CAPABILITIES,
    **headers: str,
) -> None:
    """Answer an `initialize`."""
    info = {"name": "fake", "version": "1"}
    value = {"protocolVersion": REVISION, "capabilities": capabilities, "serverInfo": info}
    result(writer, got, value, **headers)


def begin_stream(writer: asyncio.StreamWriter) -> None:
    """Write the head of an event stream, which ends with its connection."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")


def event(data: Any, name: str = "message", event_id: str = "") -> bytes:
    """One event of a stream; data that is not a text becomes JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    before = f"id: {event_id}\n" if event_id else ""
    return f"{before}event: {name}\ndata: {text}\n\n".encode()
