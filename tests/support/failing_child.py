"""A bridge over servers that need recycling, hang or stop reading, and what tests do with it."""

from __future__ import annotations

import itertools
import json
import os
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

LOOKS = ("--ping-timeout", "200ms")
"""Children are looked at ten times a second."""
_IDS = itertools.count(1)
ROOTS: dict[str, Any] = {"roots": {}}
"""A client that offers this gets its own child."""


class FailingServer(NamedTuple):
    """A bridge, the folder in which its children record their stdin, and a client."""

    bridge: RunningBridge
    folder: Path
    client: httpx.AsyncClient

    async def open(self, capabilities: Any = None) -> dict[str, str]:
        """A session's headers."""
        return await open_session(self.client, capabilities=capabilities)

    async def reply(self, headers: dict[str, str], method: str, **params: Any) -> Any:
        """The answer to a call, which must be exactly one."""
        body = rpc(next(_IDS), method, params)
        response = await self.client.post("/mcp", json=body, headers=headers)
        assert response.status_code == 200, response.text
        answers = [each for each in messages(response.text) if "method" not in each]
        (answer,) = answers
        assert answer["id"] == body["id"]
        return answer

    async def ask(self, headers: dict[str, str], method: str, **params: Any) -> Any:
        """The result of a call."""
        answer = await self.reply(headers, method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def fault(self, headers: dict[str, str], method: str, **params: Any) -> Any:
        """What the bridge says of a call that it had to answer itself."""
        answer = await self.reply(headers, method, **params)
        assert answer["error"]["code"] == -32603
        return answer["error"]["data"]["mcpbridge"]

    async def pid(self, headers: dict[str, str]) -> int:
        """The process that serves a session."""
        return int((await self.ask(headers, "x/pid"))["pid"])

    def heard(self, pid: int) -> list[dict[str, Any]]:
        """What a process has read so far."""
        lines = (self.folder / str(pid)).read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    async def until_heard(self, pid: int, method: str, count: int = 1) -> None:
        """Wait until a process has read that many messages of a method."""

        def read() -> bool:
            lines = (self.folder / str(pid)).read_bytes().split(b"\n")[:-1]
            return [json.loads(line).get("method") for line in lines].count(method) >= count

        await eventually(read, f"{count} x {method} is read by {pid}")

    async def ended(self, pid: int) -> dict[str, Any]:
        """The record of a process's end, which the bridge asked for."""
        (record,) = await self.bridge.logged("child.stopped", lambda found: found["pid"] == pid)
        return record


def new_fifo(folder: Path, name: str) -> str:
    """A fifo that no process has opened."""
    path = str(folder / name)
    os.mkfifo(path)
    return path


def open_fifo(path: str) -> int:
    """Let each process pass that waits for it; returns the descriptor to close at the end."""
    return os.open(path, os.O_RDWR)


@asynccontextmanager
async def failing_server(
    folder: Path, *words: str, manners: tuple[str, ...] = (), ready: bool = True
) -> AsyncIterator[FailingServer]:
    """A bridge with these words over `failing`."""
    records = folder / "heard"
    records.mkdir()
    command = child("failing", str(records), *manners)
    limits = httpx.Limits(max_connections=None)
    async with (
        bridge(*words, "--", *command, ready=ready) as running,
        running.client(limits=limits) as client,
    ):
        yield FailingServer(running, records, client)
