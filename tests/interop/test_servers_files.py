"""Files of VS Code and Claude Code, served as they are: real clients list tools at each address."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from tests.support.bridge_process import DEMO, RunningBridge, bridge
from tests.support.inspector import inspected
from tests.support.sdk_servers import PEERS, fastmcp4_command, interpreter

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.asyncio]

WITHIN_S = 90.0
PATHS = {"http": "mcp", "sse": "sse"}
VSCODE = """{
  // What the extension of VS Code writes, with comments and trailing commas.
  "inputs": [
    { "id": "token", "type": "promptString", "description": "a token", "password": true },
  ],
  "servers": {
    "fast": {
      "type": "stdio",
      "command": %(fastmcp)s,
      "args": [%(server)s],
      "env": { "TOKEN": "${input:token}" },
      "envFile": "${workspaceFolder}/.env",
      "dev": { "watch": "src/**/*.py", "debug": { "type": "debugpy" } },
    },
    "far": { "type": "http", "url": "%(url)s/mcp", "headers": { "X-Key": "${env:FAR_KEY}" } },
  },
}
"""


def claude() -> str:
    """A `.mcp.json` of Claude Code."""
    demo = {"command": sys.executable, "args": list(DEMO[1:]), "env": {"A": "${HOME:-/}"}}
    everything = {"type": "stdio", "command": fastmcp4_command()[0]}
    everything["args"] = [fastmcp4_command()[1]]  # type: ignore[assignment]
    return json.dumps({"mcpServers": {"demo": demo, "fast": everything}}, indent=2)


async def by_fastmcp(kind: str, url: str) -> list[str]:
    """The tools that a FastMCP client lists at an address."""
    process = await asyncio.create_subprocess_exec(
        *(interpreter(2), str(PEERS / "client_fastmcp.py"), kind, url),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    names: list[str] = json.loads(said)
    return names


async def by_inspector(kind: str, url: str, home: Path) -> list[str]:
    """The tools that the Inspector lists at an address."""
    target = ("--transport", kind, "--server-url", url)
    seen = await inspected(target, ("--method", "tools/list"), home)
    assert seen.status == 0, seen
    return [tool["name"] for tool in seen.result["tools"]]


async def listed_everywhere(running: RunningBridge, names: list[str], home: Path) -> None:
    """Assert that both clients list `echo` and the same tools by both transports of each server."""
    for name in names:
        for kind, path in PATHS.items():
            url = f"{running.url}/servers/{name}/{path}"
            tools = await by_fastmcp(kind, url)
            assert "echo" in tools
            assert await by_inspector(kind, url, home) == tools


async def test_a_file_of_vs_code(tmp_path: Path) -> None:
    """`servers`, `inputs`, `envFile`, `dev.watch`, comments, and a server elsewhere."""
    folder = tmp_path / "project"
    (folder / ".vscode").mkdir(parents=True)
    (folder / ".env").write_text("FROM_FILE=x\n")
    python, server = (json.dumps(each) for each in fastmcp4_command())
    env = {"MCPBRIDGE_INPUT_TOKEN": "s3cret", "FAR_KEY": "k"}
    async with bridge() as elsewhere:
        values = {"fastmcp": python, "server": server, "url": elsewhere.url}
        path = folder / ".vscode" / "mcp.json"
        path.write_text(VSCODE % values)
        async with bridge("--config", str(path), env=env) as running:
            await running.logged("child.ready", count=2)
            await listed_everywhere(running, ["fast", "far"], tmp_path)


async def test_a_file_of_claude_code(tmp_path: Path) -> None:
    """`.mcp.json` with variables."""
    path = tmp_path / ".mcp.json"
    path.write_text(claude())
    async with bridge("--config", str(path)) as running:
        await running.logged("child.ready", count=2)
        await listed_everywhere(running, ["demo", "fast"], tmp_path)
