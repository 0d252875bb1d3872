"""The entries with which clients reach servers of a bridge, in the form of each client's own file.

They are printed, never written into the file: to write it anew would lose its comments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import msgspec

Entries = Mapping[str, str]
"""The URL of each server by its name."""


class ClientForm(msgspec.Struct, frozen=True):
    """The form of a client's file."""

    file: str
    """Where the client looks for it."""
    write: Callable[[Entries], str]
    """Returns the text of the entries."""


def _under(table: str, entry: Callable[[str], Mapping[str, object]]) -> Callable[[Entries], str]:
    def write(entries: Entries) -> str:
        servers = {name: entry(url) for name, url in entries.items()}
        return json.dumps({table: servers}, indent=2, ensure_ascii=False)

    return write


def _toml(entries: Entries) -> str:
    # JSON's texts are texts of TOML too, keys as well as values.
    tables = (
        f"[mcp_servers.{json.dumps(name)}]\nurl = {json.dumps(url)}"
        for name, url in entries.items()
    )
    return "\n\n".join(tables)


def _typed(url: str) -> Mapping[str, object]:
    return {"type": "http", "url": url}


def forms(connect: Sequence[str]) -> Mapping[str, ClientForm]:
    """Return the form of each client's file by the client's name.

    Args:
        connect: The command that leads a client which only speaks stdio to the URL behind it.
    """
    command, *args = connect

    def by_stdio(url: str) -> Mapping[str, object]:
        return {"command": command, "args": [*args, url]}

    return {
        "claude-code": ClientForm(".mcp.json in the project", _under("mcpServers", _typed)),
        "claude-desktop": ClientForm("claude_desktop_config.json", _under("mcpServers", by_stdio)),
        "codex": ClientForm("~/.codex/config.toml", _toml),
        "cursor": ClientForm(
            ".cursor/mcp.json or ~/.cursor/mcp.json", _under("mcpServers", lambda url: {"url": url})
        ),
        "gemini": ClientForm(
            "~/.gemini/settings.json", _under("mcpServers", lambda url: {"httpUrl": url})
        ),
        "vscode": ClientForm(".vscode/mcp.json", _under("servers", _typed)),
        "windsurf": ClientForm(
            "~/.codeium/windsurf/mcp_config.json",
            _under("mcpServers", lambda url: {"serverUrl": url}),
        ),
        "zed": ClientForm(
            "~/.config/zed/settings.json", _under("context_servers", lambda url: {"url": url})
        ),
    }
