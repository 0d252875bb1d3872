"""`mcpbridge tail` beside a running `mcpbridge dev`, and `dev --tail`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.bridge_process import (
    DEMO,
    START_S,
    RunningBridge,
    bridge,
    messages,
    open_session,
    ran,
    rpc,
)
from tests.support.page import page_address, token_of
from tests.support.servers_file import entry, write_servers

pytestmark = pytest.mark.slow


class Printed:
    """The lines that a program prints, as they come."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def until(self, wanted: str) -> list[str]:
        """All lines up to the first that contains a text."""
        found: list[str] = []
        async with asyncio.timeout(START_S):
            while line := await self._reader.readline():
                found.append(line.decode().rstrip("\n"))
                if wanted in found[-1]:
                    return found
        raise AssertionError(f"no {wanted!r} in {found}")


class Tailing(Printed):
    """A running `mcpbridge tail`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        super().__init__(process.stdout)
        self._process = process

    async def ended(self) -> tuple[int, str]:
        """Its exit status, and what it says on stderr."""
        async with asyncio.timeout(START_S):
            _, told = await self._process.communicate()
        return self._process.returncode or 0, told.decode()


@asynccontextmanager
async def tailing(*words: str, **env: str) -> AsyncIterator[Tailing]:
    """`mcpbridge tail` with these words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mcpbridge", "tail", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env or None,
    )
    try:
        yield Tailing(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def called(client: httpx.AsyncClient, headers: dict[str, str], tool: str, value: str) -> None:
    """Call a tool of the demo."""
    call = {"name": tool, "arguments": {"text": value, "message": value}}
    response = await client.post("/mcp", json=rpc(1, "tools/call", call), headers=headers)
    assert messages(response.text)[-1]["id"] == 1


async def test_what_passes_is_printed_as_it_passes() -> None:
    """What was before, then each message with its answer, until the bridge ends."""
    words = ("--no-watch", "--env", "MY_KEY=sesame-1", "--", *DEMO)
    async with bridge(*words, program=["dev"]) as running, running.client() as client:
        headers = await open_session(client)
        await called(client, headers, "echo", "before")
        async with tailing(page_address(running)) as tail:
            before = await tail.until("<- answer tools/call echo")
            assert any("child.started" in line for line in before)
            await called(client, headers, "echo", "it is sesame-1")
            asked, answered = await tail.until("<- answer tools/call echo")
            assert "-> tools/call echo id=" in asked
            assert "it is ***" in asked
            assert " ms " in answered
            assert await running.terminate() == 0
            await tail.until("channel.ended")
            assert await tail.ended() == (0, "")


async def test_a_filter_chooses_and_json_is_a_recording() -> None:
    """The token may be in the environment."""
    async with (
        bridge("--no-watch", "--", *DEMO, program=["dev"]) as running,
        running.client() as client,
    ):
        headers = await open_session(client)
        address = page_address(running)
        words = (running.url, "--json", "--filter", "tool:fail status:error")
        async with tailing(*words, MCPBRIDGE_TOKEN=token_of(address)) as tail:
            for tool, value in (("fail", "one"), ("echo", "one"), ("fail", "two")):
                await called(client, headers, tool, value)
            found = [json.loads(line) for line in await tail.until('"two"')]
            texts = [each["raw"]["result"]["content"][0]["text"] for each in found]
            assert texts == ["one", "two"]
            assert {each["direction"] for each in found} == {"s2c"}


async def test_a_client_is_chosen_by_its_name() -> None:
    """What it asks, the answers, and that it has connected."""
    async with (
        bridge("--no-watch", "--", *DEMO, program=["dev"]) as running,
        running.client() as client,
    ):
        first, second = await open_session(client), await open_session(client)
        pattern = f"client:test*#{second['mcp-session-id'][:4]}"
        async with tailing(page_address(running), "--filter", pattern) as tail:
            await called(client, first, "echo", "one")
            await called(client, second, "echo", "two")
            lines = await tail.until("<- answer tools/call echo")
            assert "session.opened" in lines[0]
            assert "requested=2025-06-18 revision=2025-06-18" in lines[0]
            assert [line for line in lines if "one" in line] == []
            assert "two" in lines[-1]


async def test_dev_prints_the_same(tmp_path: Path) -> None:
    """Of each server of a file, on stdout, with or without the page."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(), "two": entry()})
    words = ("--config", str(path), "--no-watch", "--no-page", "--tail")
    pipe = asyncio.subprocess.PIPE
    async with bridge(*words, program=["dev"], ready=False, stdout=pipe) as running:
        await running.logged("child.ready", count=2)
        assert running.process.stdout is not None
        printed = Printed(running.process.stdout)
        for name in ("one", "two"):
            async with httpx.AsyncClient(base_url=f"{running.url}/servers/{name}") as client:
                await called(client, await open_session(client), "echo", name)
            last = (await printed.until("<- answer tools/call echo"))[-1]
            assert last.split()[1] == name


async def refused(running: RunningBridge, *words: str) -> tuple[int, str]:
    """The exit status and the words of a tail that cannot read."""
    return await ran("tail", *words, env={"MCPBRIDGE_TOKEN": "wrong"})


async def test_what_cannot_be_read_is_one_sentence() -> None:
    """With what to do."""
    async with bridge("--no-watch", "--", *DEMO, program=["dev"]) as running:
        status, told = await refused(running, running.url)
        assert (status, told.count("\n")) == (3, 1)
        assert "refuses the token: each run of mcpbridge dev prints another one" in told
        status, told = await refused(running, running.url, "--filter", "tol:x")
        assert (status, "'tol:x' is unknown (expected tool:" in told) == (2, True)
        status, told = await refused(running, page_address(running), "--", "x")
        assert (status, "give a URL and no command" in told) == (2, True)
    async with bridge("--no-watch", "--no-page", "--", *DEMO, program=["dev"]) as running:
        status, told = await refused(running, running.url)
        assert (status, "is not there: mcpbridge dev serves it" in told) == (3, True)
    status, told = await ran("tail", "http://127.0.0.1:1/ui#token=a")
    assert (status, "cannot be read" in told) == (3, True)
    status, told = await ran("tail")
    assert (status, "there is no token" in told) == (2, True)
