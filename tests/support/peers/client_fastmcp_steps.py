"""A client made with FastMCP 4, one session long: `client_fastmcp_steps.py MODE URL`.

Each line on stdin is a step, as JSON; a line on stdout is what came of it. The session ends with
stdin.

| step | comes to |
|---|---|
| `["tools"]` | the names of the tools |
| `["call", NAME, ARGUMENTS]` | the text that the tool answers |
| `["changed", COUNT]` | how often the tools have changed, once it is COUNT times |
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import anyio.to_thread
from fastmcp import Client
from fastmcp.client.messages import MessageHandler


class Changes(MessageHandler):
    """Counts how often the tools have changed."""

    def __init__(self) -> None:
        self._count = 0
        self._news = anyio.Event()

    async def on_tool_list_changed(self, message: object) -> None:
        """Count one."""
        self._count += 1
        self._news.set()
        self._news = anyio.Event()

    async def reached(self, count: int) -> int:
        """Wait until there were `count`; the number by then."""
        while self._count < count:
            await self._news.wait()
        return self._count


async def taken(client: Client, changes: Changes, step: list[Any]) -> Any:
    """What comes of one step."""
    match step:
        case ["tools"]:
            return [tool.name for tool in await client.list_tools()]
        case ["call", name, arguments]:
            return (await client.call_tool(name, arguments)).content[0].text
        case ["changed", count]:
            return await changes.reached(count)
    raise AssertionError(step)


async def main(mode: str, url: str) -> None:
    """Take each step that stdin has."""
    changes = Changes()
    async with Client(url, mode=mode, message_handler=changes) as client:
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await taken(client, changes, json.loads(line))), flush=True)


anyio.run(main, *sys.argv[1:])
