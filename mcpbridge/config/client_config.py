"""The entries with which clients reach servers of a bridge, in the form of each client's own file.

They are printed, never written into the file: rewriting it would lose its comments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from mcpbridge.config.self_url import own_url
from mcpbridge.errors import ConfigError

Entries = Mapping[str, str]
"""The URL of each server by its name."""
_ALONE = "mcpbridge"
"""The name of a bridge that serves one server."""


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


def entries(file: str | None, url: str | None, name: str | None) -> Entries:
    """Return the URLs of the servers of a file; without a file that of the bridge itself.

    Args:
        file: The file of servers; None for what MCPBRIDGE_CONFIG names, if anything.
        url: Where clients reach the bridge, with or without `/mcp`; None for this machine's own
            address.
        name: The one server that is wanted; without a file, the name of the entry.

    Raises:
        ConfigError: The URL is invalid, the name is a URL, the file cannot be read, or it has no
            server of that name.
    """
    if name is not None and "://" in name:
        raise ConfigError("NAME", "", f"{name!r} is an address", f"write --url {name}")
    # The address of the endpoint is what the bridge prints, so it is accepted as well.
    base = (url or own_url()).rstrip("/").removesuffix("/mcp")
    if not base.startswith(("http://", "https://")):
        raise ConfigError("--url", "", f"invalid URL {base!r} (expected http:// or https://)")
    path = file or os.environ.get("MCPBRIDGE_CONFIG")
    if not path:
        return {name or _ALONE: f"{base}/mcp"}
    names = _names_in(Path(path), name)
    return {each: f"{base}/servers/{quote(each, safe='')}/mcp" for each in names}


def _names_in(path: Path, wanted: str | None) -> Sequence[str]:
    # Imported with a file alone.
    from mcpbridge.config.model import Settings
    from mcpbridge.config.servers_file import read_servers_file

    names = list(read_servers_file(path, Settings(), os.environ).servers)
    if wanted is None:
        return names
    if wanted not in names:
        known = ", ".join(names) or "none"
        raise ConfigError("NAME", "", f"unknown server {wanted!r}", f"name one of: {known}")
    return [wanted]
