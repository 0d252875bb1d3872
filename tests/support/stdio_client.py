"""A stdio MCP client of `mcpbridge connect`, for tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.support.bridge_process import initialize, rpc, started

WITHIN_S = 20.0
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def line_of(message: Any) -> bytes:
    """A message as a line of stdin."""
    return json.dumps(message).encode() + b"\n"


class StdioServer(Protocol):
    """A program that is a server on its stdin and stdout."""

    process: asyncio.subprocess.Process
    noise: list[str]

    async def ended(self) -> int:
        """Wait for its end; its exit status."""


class StdioProgram:
    """A process that a test has started: see `StdioServer`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.noise: list[str] = []

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        return await self.process.wait()


class StdioClient:
    """The client of one process: what it sends, and all that it is sent."""

    def __init__(self, running: StdioServer) -> None:
        self.running = running
        self.process = running.process
        self.lines: list[dict[str, Any]] = []
        """Every message that came on stdout; each line must be one."""
        self._ids = iter(range(1, 1 << 30))

    def write(self, message: Any) -> None:
        """Write a message, or bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(message if isinstance(message, bytes) else line_of(message))

    async def next(self) -> dict[str, Any]:
        """Wait for one more message."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            line = await self.process.stdout.readline()
        assert line, "stdout has ended"
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        self.lines.append(message)
        return message

    async def told(self, method: str) -> dict[str, Any]:
        """Wait for a request or notification of the server; earlier ones count too."""
        while not (found := [each for each in self.lines if each.get("method") == method]):
            await self.next()
        return found[-1]

    async def answer_to(self, request_id: Any) -> dict[str, Any]:
        """Wait for the answer to a request."""
        while not (found := [e for e in self.lines if "method" not in e and e["id"] == request_id]):
            await self.next()
        assert len(found) == 1
        return found[0]

    async def ask(self, method: str, params: Any = None) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        request_id = f"c{next(self._ids)}"
        self.write(rpc(request_id, method, params))
        return await self.answer_to(request_id)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and wait for the answer."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments})

    async def introduce(self, capabilities: Any = None) -> dict[str, Any]:
        """Make the handshake; the answer to `initialize`."""
        self.write(initialize(0, capabilities=capabilities))
        answer = await self.answer_to(0)
        self.write(INITIALIZED)
        return answer

    async def end(self) -> int:
        """Close stdin; return the exit status, with the rest of stdout read."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        async with asyncio.timeout(WITHIN_S):
            while line := await self.process.stdout.readline():
                self.lines.append(json.loads(line))
        return await self.running.ended()


@asynccontextmanager
async def stdio_client(
    url: str, *flags: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[StdioClient]:
    """A client of `mcpbridge connect URL`; ends with status 0 if the test has not ended it."""
    pipe = asyncio.subprocess.PIPE
    async with started("connect", url, *flags, env=env, stdin=pipe, stdout=pipe) as running:
        client = StdioClient(running)
        yield client
        if client.process.returncode is None:
            assert await client.end() == 0, running.noise


@asynccontextmanager
async def stdio_client_of(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[StdioClient]:
    """A client of any command; the process and its group are killed at the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        yield StdioClient(StdioProgram(process))
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
