"""`mcpbridge dev` over a server made with FastMCP: a save takes effect, a mistake does not."""

from __future__ import annotations

import asyncio
import os
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_listen import ACK, TOOLS, listen, told
from tests.e2e.test_recycling import CHANGED, message
from tests.support.bridge_process import eventually, initialize
from tests.support.developing import Developing, developing, said
from tests.support.failing_child import ROOTS, new_fifo, open_fifo
from tests.support.modern_client import Stateless
from tests.support.questioner_bridge import reading
from tests.support.sdk_servers import interpreter
from tests.support.stdio_client import line_of

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.asyncio]

SOURCE = """\
import json
import os

import anyio
from fastmcp import FastMCP

server = FastMCP("changing")


def process() -> str:
    return json.dumps({"pid": os.getpid()})


def pass_gate(begun: str, fifo: str) -> None:
    open(begun, "wb").close()
    open(fifo, "rb").close()


@server.tool
async def wait(begun: str, fifo: str) -> str:
    await anyio.to_thread.run_sync(pass_gate, begun, fifo)
    return process()


@server.tool
def one() -> str:
    return process()


# more tools
server.run(show_banner=False)
"""
TOOL = """\
@server.tool
def {name}() -> str:
    return process()


"""
BROKEN = SOURCE.replace("def one() -> str:", "def one( -> str:")
MISTAKE = "SyntaxError: invalid syntax"
LISTS = [f"notifications/{name}/list_changed" for name in ("tools", "prompts", "resources")]
VERSIONS = {"fastmcp3": (1, "legacy"), "fastmcp4": (2, "modern")}
"""Environment and newest era of each version."""
OFFERS: dict[str, Any] = {"shared": None, "own": ROOTS}
LONG = ("--request-timeout", "10m")
"""For the call that is in flight during every save, however busy the machine."""


def text(*tools: str) -> str:
    """The text of a server with these tools after `wait` and `one`."""
    return SOURCE.replace("# more tools\n", "".join(TOOL.format(name=name) for name in tools))


@asynccontextmanager
async def fastmcp_developed(folder: Path, environment: int, era: str) -> AsyncIterator[Developing]:
    """`mcpbridge dev` over the server, for the FastMCP of an environment, spoken to in an era."""
    words = ("--child-era", era, *LONG)
    given: dict[str, Any] = {"python": interpreter(environment), "env": {}}
    async with developing(folder, text(), *words, **given) as on:
        yield on


async def own_start_s(on: Developing, environment: int) -> float:
    """Seconds that the server as it is now takes to answer `initialize`, without the bridge."""
    began = time.monotonic()
    words = (interpreter(environment), str(on.server))
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line_of(initialize()))
        assert b'"result"' in await process.stdout.readline()
        return time.monotonic() - began
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", OFFERS)
async def test_a_session_sees_every_save_but_no_mistake(
    tmp_path: Path, who: str, version: str
) -> None:
    """Its call in flight is answered by the old process, and each reload is told once.

    Whether it shares its process or, since its client offers roots, has its own.
    """
    environment, _ = VERSIONS[version]
    fifo, begun = new_fifo(tmp_path, "fifo"), tmp_path / "begun"
    async with fastmcp_developed(tmp_path, environment, "legacy") as on:
        session = await on.open(OFFERS[who])
        old = (await on.call(session))["pid"]
        async with reading(on.client, session) as listening:
            call = on.call(session, "wait", begun=str(begun), fifo=fifo)
            waiting = asyncio.create_task(call)
            await eventually(begun.exists, "the call is in flight")
            for tools in (["two"], ["two", "three"]):
                await on.saved(text(*tools))
                assert [(await message(listening))["method"] for _ in LISTS] == LISTS
                assert await on.tools(session) == ["wait", "one", *tools]
            pid = (await on.call(session))["pid"]
            assert pid != old

            failed = await on.saved(BROKEN, "server.reload_failed")
            assert (failed["last_words"][-1], failed["because"]) == (MISTAKE, "server.py")
            assert await on.tools(session) == ["wait", "one", "two", "three"]
            assert (await on.call(session))["pid"] == pid

            began = time.monotonic()
            await on.saved(text("repaired"))
            # The next that is told after the last reload: of the mistake nothing was.
            assert [(await message(listening))["method"] for _ in LISTS] == LISTS
            assert await on.tools(session) == ["wait", "one", "repaired"]
            served_s = time.monotonic() - began
            assert (await on.call(session, "repaired"))["pid"] not in (old, pid)

            assert not waiting.done()
            passed = open_fifo(fifo)
            assert (await waiting)["pid"] == old
            os.close(passed)
            await on.bridge.logged("child.stopped", lambda found: found["pid"] == old)
            assert (await on.client.delete("/mcp", headers=session)).status_code == 200
            assert [each for each in await listening.rest() if each.fields.get("data")] == []
        assert len(on.bridge.events("server.reloaded")) == 3
        own_s = await own_start_s(on, environment)
    print(
        f"{version}, {who}: the repair was served after {served_s:.2f} s; the server's own start"
        f" takes {own_s:.2f} s; the rest is {served_s - own_s:.2f} s"
    )


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_modern_client_sees_a_repair_but_no_mistake(tmp_path: Path, version: str) -> None:
    """By translation or by a server of the same era; its listen is told once of each repair.

    FastMCP 4 has no `subscriptions/listen` and says so; the bridge keeps the listen open for it.
    """
    environment, era = VERSIONS[version]
    fifo, begun = new_fifo(tmp_path, "fifo"), tmp_path / "begun"
    async with fastmcp_developed(tmp_path, environment, era) as on, AsyncExitStack() as streams:
        client = Stateless(on.bridge, tmp_path, on.client)

        async def called(tool: str, **arguments: Any) -> Any:
            params = {"name": tool, "arguments": arguments}
            return said(await client.result("tools/call", params))["pid"]

        async def names() -> list[str]:
            return [each["name"] for each in (await client.result("tools/list"))["tools"]]

        events = await streams.enter_async_context(client.stream(listen(client, TOOLS, 7)))
        acknowledged = await events.next()
        assert told(acknowledged) == (ACK, None, 7)
        assert acknowledged["params"]["notifications"] == TOOLS
        old = await called("one")
        waiting = asyncio.create_task(called("wait", begun=str(begun), fifo=fifo))
        await eventually(begun.exists, "the call is in flight")
        for tools in (["two"], ["repaired"]):
            before = (await names(), await called("one"))
            failed = await on.saved(BROKEN, "server.reload_failed")
            assert failed["last_words"][-1] == MISTAKE
            assert (await names(), await called("one")) == before
            await on.saved(text(*tools))
            assert told(await events.next()) == (CHANGED, None, 7)
            assert await names() == ["wait", "one", *tools]
            assert await called(tools[0]) != before[1]
        assert not waiting.done()
        passed = open_fifo(fifo)
        assert await waiting == old
        os.close(passed)
