"""`mcpbridge config-for CLIENT [NAME]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mcpbridge.config.client_config import entries, forms

_HELP = """Print the entry with which a client reaches a running bridge; it is not written anywhere.

With --config, or MCPBRIDGE_CONFIG, it prints an entry for each server of that file, or for the one
called NAME. Without a file it prints one entry for the bridge itself, called NAME.
"""
_CONNECT = (sys.executable, "-m", "mcpbridge", "connect")
"""For clients that only speak stdio; by its full path, since they are started without a shell's."""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that prints entries for clients; `command` is ignored."""
    clients = forms(_CONNECT)

    @click.command(name="config-for", help=_HELP)
    @click.argument("client", type=click.Choice(sorted(clients)))
    @click.argument("name", required=False)
    @click.option("--url", metavar="URL", help="Where clients reach the bridge.")
    @click.option("--config", metavar="FILE", help="The file of servers that the bridge serves.")
    def config_for(client: str, name: str | None, url: str | None, config: str | None) -> int:
        click.echo(clients[client].write(entries(config, url, name)))
        click.echo(f"for {clients[client].file}", err=True)
        return 0

    return config_for
