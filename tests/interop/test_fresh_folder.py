"""The first minutes with `mcpbridge dev` in a fresh folder: a FastMCP server and one in TypeScript.

The file is a `.mcp.json` as Claude Code has it, the command has no option, and the clients are
FastMCP's own, each in one session from before the saves until after them.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import RunningBridge, bridge
from tests.support.inspector import NODE_MODULES, node
from tests.support.page import frames, page_address
from tests.support.sdk_servers import PEERS, fastmcp4_command, interpreter
from tests.support.servers_file import save, statuses, write_servers

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.asyncio]

STEP_WITHIN_S = 90.0
"""The first step of a client waits for the imports of its SDK."""
FASTMCP = """\
from fastmcp import FastMCP

server = FastMCP("weather")


@server.tool
def forecast(city: str) -> str:
    return f"{city}: rain"

# more
server.run(show_banner=False)
"""
MORE_FASTMCP = """
@server.tool
def warning(city: str) -> str:
    return f"{city}: storm"

"""
TYPESCRIPT = """\
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { z } from 'zod';

interface Note {
  text: string;
}

const server = new McpServer({ name: 'notes', version: '1.0' });
const said = (text: string) => ({ content: [{ type: 'text' as const, text }] });

const inputSchema = { text: z.string() };

server.registerTool('note', { inputSchema }, ({ text }: Note) => said(`noted: ${text}`));
// more
await server.connect(new StdioServerTransport());
"""
MORE_TYPESCRIPT = """
server.registerTool('forget', { inputSchema }, ({ text }: Note) => said(`forgot: ${text}`));
"""
FRESH = {"MCPBRIDGE_CHILD_ERA": "auto"}
"""The program's own default, in place of what these tests usually give."""


class Steps:
    """A FastMCP client of one server, in one session."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def take(self, *step: Any) -> Any:
        """What comes of one step of the client."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(step).encode() + b"\n")
        async with asyncio.timeout(STEP_WITHIN_S):
            line = await stdout.readline()
        assert line, f"the client has ended at {step}"
        return json.loads(line)

    async def end(self) -> int:
        """End its session; the client's exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(STEP_WITHIN_S):
            return await self._process.wait()


@asynccontextmanager
async def fastmcp_client(url: str) -> AsyncIterator[Steps]:
    """A client that opens its session with its first step; it must come to a good end."""
    words = (interpreter(2), str(PEERS / "client_fastmcp_steps.py"), "legacy", url)
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE)
    try:
        steps = Steps(process)
        yield steps
        assert await steps.end() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def fresh_folder(folder: Path) -> Path:
    """A project as a new user has it after `npm install`: two servers and the file of both."""
    folder.mkdir()
    (folder / "node_modules").symlink_to(NODE_MODULES.resolve())
    save(folder / "package.json", '{"type": "module"}')
    save(folder / "server.py", FASTMCP)
    save(folder / "server.ts", TYPESCRIPT)
    weather = {"command": fastmcp4_command()[0], "args": ["server.py"]}
    notes = {"command": node(), "args": ["server.ts"]}
    write_servers(folder / ".mcp.json", {"weather": weather, "notes": notes})
    return folder


async def shown_on_page(running: RunningBridge, tools: set[str]) -> set[tuple[str, str]]:
    """Read the page's frames until these tools have been called; the server of each."""
    called: set[tuple[str, str]] = set()
    async with frames(running, "?raw=1") as reader:
        while tools != {tool for _, tool in called}:
            event = await reader.next()
            assert event is not None
            if event.method == "tools/call":
                called.add((event.data["server_label"], event.data["raw"]["params"]["name"]))
    return called


async def test_two_servers_of_a_fresh_folder_are_served_and_saved(tmp_path: Path) -> None:
    """Both are listed, called, in `/servers` and on the page; a save of each is live at once."""
    folder = fresh_folder(tmp_path / "project")
    async with bridge(program=["dev"], ready=False, cwd=folder, env=FRESH) as running:
        await running.logged("serve.ready", count=2)
        await running.logged("dev.started", count=2)
        base = f"{running.url}/servers"
        async with (
            running.client() as client,
            fastmcp_client(f"{base}/weather/mcp") as weather,
            fastmcp_client(f"{base}/notes/mcp") as notes,
        ):
            found = await statuses(client)
            assert {name: (each["state"], each["reason"]) for name, each in found.items()} == {
                "weather": ("ready", ""),
                "notes": ("ready", ""),
            }
            assert {each["address"] for each in found.values()} == {
                f"{base}/weather/mcp",
                f"{base}/notes/mcp",
            }
            assert await weather.take("tools") == ["forecast"]
            assert await notes.take("tools") == ["note"]
            assert await weather.take("call", "forecast", {"city": "Oslo"}) == "Oslo: rain"
            assert await notes.take("call", "note", {"text": "tea"}) == "noted: tea"
            page = await client.get(page_address(running))
            assert (page.status_code, "<title>mcpbridge dev</title>" in page.text) == (200, True)
            assert await shown_on_page(running, {"forecast", "note"}) == {
                ("weather", "forecast"),
                ("notes", "note"),
            }

            save(folder / "server.py", FASTMCP.replace("# more\n", MORE_FASTMCP))
            assert await weather.take("changed", 1) == 1
            assert await weather.take("tools") == ["forecast", "warning"]
            assert await weather.take("call", "warning", {"city": "Oslo"}) == "Oslo: storm"
            assert await notes.take("tools") == ["note"]

            save(folder / "server.ts", TYPESCRIPT.replace("// more\n", MORE_TYPESCRIPT))
            assert await notes.take("changed", 1) == 1
            assert await notes.take("tools") == ["note", "forget"]
            assert await notes.take("call", "forget", {"text": "tea"}) == "forgot: tea"
            assert await weather.take("call", "forecast", {"city": "Rome"}) == "Rome: rain"
        reloads = running.events("server.reloaded")
        assert [(each["server_name"], each["because"]) for each in reloads] == [
            ("weather", "server.py"),
            ("notes", "server.ts"),
        ]
        opened = [each["server_name"] for each in running.events("session.opened")]
        assert sorted(opened) == ["notes", "weather"], "one session each, from before the saves on"
        assert running.events("child.exited") == []
