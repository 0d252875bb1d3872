"""The entry that `mcpbridge config-for` prints for a client which only speaks stdio."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.bridge_process import bridge, ran
from tests.support.stdio_client import stdio_client_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]


async def test_a_client_of_stdio_starts_it_from_any_folder(tmp_path: Path) -> None:
    """Its command is an absolute path: such clients have neither a shell nor its PATH."""
    async with bridge() as running:
        status, printed = await ran("config-for", "claude-desktop", "demo", "--url", running.url)
        assert status == 0, printed
        text, _, place = printed.rpartition("for ")
        assert place == "claude_desktop_config.json\n"
        (entry,) = json.loads(text)["mcpServers"].values()
        assert os.path.isabs(entry["command"])
        assert os.access(entry["command"], os.X_OK)
        assert entry["args"][-1] == f"{running.url}/mcp"
        command = (entry["command"], *entry["args"])
        async with stdio_client_of(command, {"PATH": ""}, tmp_path) as client:
            assert (await client.introduce())["result"]["serverInfo"]["name"] == "mcpbridge-demo"
            called = await client.call("echo", text="from Claude Desktop")
            assert called["result"]["content"][0]["text"] == "from Claude Desktop"
            assert await client.end() == 0
