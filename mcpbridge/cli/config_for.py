"""`mcpbridge config-for CLIENT [NAME]`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import click

from mcpbridge.config.client_config import forms
from mcpbridge.config.self_url import own_url
from mcpbridge.errors import ConfigError

_HELP = """Print the entry with which a client reaches a running bridge; it is not written anywhere.

With --config, or MCPBRIDGE_CONFIG, it prints an entry for each server of that file, or for the one
called NAME. Without a file it prints one entry for the bridge itself, called NAME.
"""
_ALONE = "mcpbridge"
_CONNECT = ("npx", "-y", "mcp-remote")
"""For clients that only speak stdio."""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that prints entries for clients; `command` is ignored."""
    clients = forms(_CONNECT)

    @click.command(name="config-for", help=_HELP)
    @click.argument("client", type=click.Choice(sorted(clients)))
    @click.argument("name", required=False)
    @click.option("--url", metavar="URL", help="Where clients reach the bridge, without a path.")
    @click.option("--config", metavar="FILE", help="The file of servers that the bridge serves.")
    def config_for(client: str, name: str | None, url: str | None, config: str | None) -> int:
        base = (url or own_url()).rstrip("/")
        if not base.startswith(("http://", "https://")):
            raise ConfigError("--url", "", f"invalid URL {base!r} (expected http:// or https://)")
        file = config or os.environ.get("MCPBRIDGE_CONFIG")
        entries = _of_file(Path(file), base, name) if file else {name or _ALONE: f"{base}/mcp"}
        click.echo(clients[client].write(entries))
        click.echo(f"for {clients[client].file}", err=True)
        return 0

    return config_for


def _of_file(path: Path, base: str, name: str | None) -> Mapping[str, str]:
    from mcpbridge.config.model import Settings
    from mcpbridge.config.servers_file import read_servers_file  # with a file alone

    file = read_servers_file(path, Settings(), os.environ)
    if name is not None and name not in file.servers:
        names = ", ".join(file.servers) or "none"
        raise ConfigError("NAME", "", f"unknown server {name!r}", f"name one of: {names}")
    wanted = file.servers if name is None else (name,)
    return {each: f"{base}/servers/{quote(each, safe='')}/mcp" for each in wanted}
