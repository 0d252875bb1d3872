"""The lines that replace another bridge's: each is run as printed, and serves."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import httpx
import pytest

from mcpbridge.config.model import options
from tests.deploy.tools import ROOT
from tests.support.bridge_process import ACCEPT, RunningBridge, initialize, rpc, started

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs" / "migration.md").read_text("utf-8")
SECTIONS = re.findall(r"^## From (.*?)\n(.*?)(?=^## )", TEXT, re.M | re.S)
LINES = [
    pytest.param(line, id=f"{title}-{number}")
    for title, section in SECTIONS
    for number, line in enumerate(re.findall(r"\| `(mcpbridge [^`]*)` \|$", section, re.M))
]
SERVERS = '{"mcpServers": {"git": {"command": "python", "args": ["server.py"]}}}'
SERVER = "from mcpbridge.demo import main\n\nmain()\n"


def test_every_section_has_lines_and_options() -> None:
    """Each option of theirs has a row, and each flag of ours in it exists."""
    assert [title for title, _ in SECTIONS] == [
        "supergateway",
        "mcp-proxy (Python)",
        "mcp-proxy (TypeScript)",
        "FastMCP's command line",
    ]
    assert len(LINES) >= 22
    flags = {option.setting.flag for option in options()}
    for _, section in SECTIONS:
        rows = re.findall(r"^\| (`?-.*?|a URL.*?|`MCP.*?) \| (.*) \|$", section, re.M)
        assert len(rows) >= 11
        ours = {
            flag
            for _, here in rows
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"With .*", "", here))
        }
        assert "--stdio" in flags
        # Those of `mcpbridge dev` and of uv.
        assert ours - {"--stdio", "--watch", "--python"} <= flags


def test_every_option_of_their_lines_has_a_row() -> None:
    """A reader who finds a line alike finds what becomes of each option of it."""
    for title, section in SECTIONS:
        before = re.findall(
            r"^\| `((?:npx|supergateway|mcp-proxy|fastmcp)[^`]*)` \|", section, re.M
        )
        _, _, table = section.partition("| option | here |")
        assert before
        for line in before:
            words = shlex.split(line.partition(" -- ")[0])
            for option in [word for word in words if re.match(r"--?[a-z]", word)]:
                if option not in ("-y",):
                    assert re.search(rf"`{option}\b", table), f"{title}: {option}"


@pytest.mark.parametrize("line", LINES)
async def test_a_line_serves_as_it_is_printed(line: str, tmp_path: Path) -> None:
    """In a folder with that server; only the port is a free one."""
    (tmp_path / "server.py").write_text(SERVER, "utf-8")
    (tmp_path / "servers.json").write_text(SERVERS, "utf-8")
    words = shlex.split(line.replace("$PWD", str(tmp_path)))[1:]
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PORT": "0",
        "MCPBRIDGE_CHILD_ERA": "",
    }
    async with started(*_on_a_free_port(words), env=env, cwd=tmp_path) as running:
        (record,) = await running.logged("serve.started")
        address = httpx.URL(str(record["url"]))
        await running.logged("child.ready")
        path = "/servers/git/mcp" if "--config" in words else address.path
        await _assert_serves(f"http://127.0.0.1:{address.port}", path)
        assert await running.terminate() == 0
        _assert_nothing_was_ignored(running)


def _on_a_free_port(words: list[str]) -> list[str]:
    """The same words with port 0; PORT=0 stands for the default one."""
    if "--" not in words and "--config" not in words:
        words.append("--")  # or the demo would be started as well
    own = words[: words.index("--")] if "--" in words else words
    for flag in ("--port", "--listen"):
        if flag in own:
            place = own.index(flag) + 1
            host, colon, _ = words[place].rpartition(":")
            words[place] = f"{host}{colon}0"
    return words


async def _assert_serves(url: str, path: str) -> None:
    """A session on the MCP path, a call in it, and the older transport beside it."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        opened = await client.post(path, json=initialize(), headers=ACCEPT)
        assert opened.status_code == 200, opened.text
        headers = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await client.post(path, json=told, headers=headers)).status_code == 202
        call = rpc(1, "tools/call", {"name": "echo", "arguments": {"text": "moved"}})
        answer = await client.post(path, json=call, headers=headers)
        assert answer.json()["result"]["content"][0]["text"] == "moved"
        stream_path = f"{path}/sse"
        if path == "/mcp" or path.startswith("/servers/"):
            stream_path = path.removesuffix("/mcp") + "/sse"
        async with client.stream("GET", stream_path) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            async for first in stream.aiter_lines():
                assert first == "event: endpoint"
                break


def _assert_nothing_was_ignored(running: RunningBridge) -> None:
    assert [record for record in running.log if record["level"] in ("error", "critical")] == []
